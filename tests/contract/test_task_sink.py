"""TaskSink: a task that was put is in the lane of its pool and class, or nobody knows."""

import time
import uuid

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from millrace.task.v1.task_pb2 import PRIORITY_CLASS_BATCH, PRIORITY_CLASS_STANDARD, Task
from services.chassis.kafka import KafkaAwayError, LoopProducer
from services.pools.core.lanes import topics_of
from services.router.adapters.kafka_task_sink import KafkaTaskSink
from services.router.adapters.memory_task_sink import MemoryTaskSink
from tests.support.components import free_port


def a_task(
    pool, priority_class=PRIORITY_CLASS_STANDARD, trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
):
    task = Task(id=uuid.uuid4().hex[:26], pool=pool, priority_class=priority_class, traceparent=trace)
    task.deadline.FromMilliseconds(1_700_000_000_123)
    return task


def committed(bootstrap, topic, count):
    """(key, task, headers) of the first records of a topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "sink", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(2)])
    found, ends = [], time.monotonic() + 10
    while len(found) < count and time.monotonic() < ends:
        if (message := consumer.poll(0.2)) and not message.error():
            found.append((message.key(), Task.FromString(message.value()), dict(message.headers() or ())))
    consumer.close()
    return found


@pytest.fixture
def pool(kafka_bootstrap):
    name = f"sink-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    for made in admin.create_topics([NewTopic(t, 2, 1) for t in topics_of(name)]).values():
        made.result(10)
    return name


async def test_a_task_goes_to_the_lane_of_its_pool_and_class_in_memory():
    """One list per topic; what the caller changes later is not in it."""
    sink = MemoryTaskSink()
    standard, batch = a_task("p"), a_task("p", PRIORITY_CLASS_BATCH)
    await sink.put(standard, 1.0)
    await sink.put(batch, 1.0)
    standard.pool = "changed"
    assert [task.pool for task in sink.lanes["tasks.p.standard"]] == ["p"]
    assert sink.lanes["tasks.p.batch"] == [batch]


@pytest.mark.real
async def test_a_task_goes_to_the_lane_of_its_pool_and_class_in_kafka(kafka_bootstrap, pool):
    """No key, value = the task, headers for tools that do not decode it."""
    standard, batch = a_task(pool), a_task(pool, PRIORITY_CLASS_BATCH, trace="")
    async with LoopProducer(kafka_bootstrap) as producer:
        sink = KafkaTaskSink(producer)
        await sink.put(standard, 10.0)
        await sink.put(batch, 10.0)
    ((key, task, headers),) = committed(kafka_bootstrap, f"tasks.{pool}.standard", 1)
    assert (key, task) == (None, standard)
    assert headers == {"deadline": b"1700000000123", "class": b"standard", "traceparent": standard.traceparent.encode()}
    ((_, task, headers),) = committed(kafka_bootstrap, f"tasks.{pool}.batch", 1)
    assert task == batch
    assert headers == {"deadline": b"1700000000123", "class": b"batch"}


async def test_an_unconfirmed_task_is_unknown_in_memory():
    """Away: not there. Lost answer: there."""
    sink = MemoryTaskSink()
    sink.away = True
    with pytest.raises(KafkaAwayError):
        await sink.put(a_task("p"), 1.0)
    sink.away, sink.loses_answers = False, True
    with pytest.raises(KafkaAwayError):
        await sink.put(a_task("p"), 1.0)
    assert len(sink.lanes["tasks.p.standard"]) == 1


async def test_without_a_broker_a_task_is_unknown_within_its_time():
    """The caller gets its answer by the deadline."""
    async with LoopProducer(f"127.0.0.1:{free_port()}", message_timeout_s=0.2) as producer:
        began = time.monotonic()
        with pytest.raises(KafkaAwayError):
            await KafkaTaskSink(producer).put(a_task("p"), 0.15)
        assert time.monotonic() - began < 3
