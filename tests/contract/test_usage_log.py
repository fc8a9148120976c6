"""Where usage goes: in memory and in a real Kafka."""

import uuid

import pytest

from millrace.task.v1.task_pb2 import Outcome, UsageRecord
from services.chassis.kafka import KafkaAwayError, LoopProducer
from services.tasklog.adapters.kafka_usage_log import TOPIC, KafkaUsageLog
from services.tasklog.adapters.memory_usage_log import MemoryUsageLog
from tests.support.components import free_port


class InMemory:
    """Reads back what the memory adapter was given."""

    def __init__(self):
        self.usage = MemoryUsageLog()

    def of(self, task):
        return [(record.task.encode(), record) for record in self.usage.records if record.task == task]


class OnKafka:
    """Reads the topic from its beginning."""

    def __init__(self, bootstrap, producer):
        self.bootstrap, self.usage = bootstrap, KafkaUsageLog(producer)

    def of(self, task):
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": task, "enable.auto.commit": False})
        try:
            partitions = list(consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions)
            wanted = sum(consumer.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=10)[1] for p in partitions)
            consumer.assign([TopicPartition(TOPIC, p, 0) for p in partitions])
            messages = []
            while len(messages) < wanted:
                messages += consumer.consume(wanted - len(messages), timeout=5)
            assert all(message.error() is None for message in messages)
        finally:
            consumer.close()
        records = [(message.key(), UsageRecord.FromString(message.value())) for message in messages]
        return [(key, record) for key, record in records if record.task == task]


@pytest.fixture(scope="module")
def usage_topic(request):
    """The topic, made once."""
    from confluent_kafka.admin import AdminClient, NewTopic

    bootstrap = request.getfixturevalue("kafka_bootstrap")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    if TOPIC not in admin.list_topics(timeout=10).topics:
        admin.create_topics([NewTopic(TOPIC, 3)])[TOPIC].result(20)
    return bootstrap


@pytest.fixture(params=["memory", "kafka"])
async def place(request):
    """A usage log and a way to read it."""
    if request.param == "memory":
        yield InMemory()
        return
    bootstrap = request.getfixturevalue("usage_topic")
    async with LoopProducer(bootstrap) as producer:
        yield OnKafka(bootstrap, producer)


async def test_a_record_that_was_written_is_there(place):
    """Under the task's id as its key; all of it."""
    task = uuid.uuid4().hex
    record = UsageRecord(task=task, gen=(1 << 62) + 1, tenant="acme", outcome=Outcome(finish_reason="stop"))
    record.metadata["run"] = "7"
    await place.usage.write(record)
    assert place.of(task) == [(task.encode(), record)]


async def test_a_record_may_be_written_again_and_the_newest_gen_counts(place):
    """The end routine is repeated by whoever takes over; readers keep one record per task."""
    task = uuid.uuid4().hex
    old, new = UsageRecord(task=task, gen=1), UsageRecord(task=task, gen=5)
    for record in (old, new, new):
        await place.usage.write(record)
    assert [record for _, record in place.of(task)] == [old, new, new]


async def test_memory_tells_what_readers_of_the_topic_keep():
    """Of each task the record with the newest gen, whatever the order."""
    usage = MemoryUsageLog()
    for task, gen in (("a", 1), ("b", 2), ("a", 7), ("a", 3)):
        await usage.write(UsageRecord(task=task, gen=gen))
    assert {task: record.gen for task, record in usage.newest().items()} == {"a": 7, "b": 2}


async def test_what_is_written_is_a_copy():
    """The caller may go on with its record."""
    usage, record = MemoryUsageLog(), UsageRecord(task="a", gen=1)
    await usage.write(record)
    record.gen = 2
    assert usage.records[0].gen == 1


@pytest.mark.parametrize("kind", ["memory", "kafka"])
async def test_a_log_that_is_away_says_so(kind):
    """The caller decides how long it repeats."""
    if kind == "memory":
        usage = MemoryUsageLog()
        usage.away = True
        with pytest.raises(KafkaAwayError):
            await usage.write(UsageRecord(task="a"))
        return
    async with LoopProducer(f"127.0.0.1:{free_port()}", message_timeout_s=0.2) as producer:
        with pytest.raises(KafkaAwayError):
            await KafkaUsageLog(producer).write(UsageRecord(task="a"))
