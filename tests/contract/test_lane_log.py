"""The lanes of a pool, in memory and on a real broker."""

import asyncio
import time
import uuid

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from millrace.task.v1.task_pb2 import PRIORITY_CLASS_BATCH, PRIORITY_CLASS_STANDARD, DeadTask, Task
from services.chassis.kafka import LoopProducer
from services.dispatcher.adapters.kafka_lane_log import KafkaLaneLog
from services.dispatcher.adapters.memory_lane_log import MemoryLaneLog, MemoryLanes
from services.dispatcher.core.offsets import Commit
from services.dispatcher.ports import NoCommittedOffsetError
from services.pools.core.lanes import DEAD_TOPIC, group_of, topic_of, topics_of

STANDARD = (PRIORITY_CLASS_STANDARD, 0)


class InMemory:
    """A broker for one pool."""

    def __init__(self):
        self.lanes = MemoryLanes()

    def log(self):
        return MemoryLaneLog(self.lanes)

    async def produce(self, *tasks):
        for task in tasks:
            self.lanes.append(task)

    async def forget_commits(self):
        self.lanes.commits.clear()

    async def dead(self):
        return [dead.task.id for dead in self.lanes.dead]


class OnKafka:
    """The same on a real broker: a pool of the test's own."""

    def __init__(self, bootstrap, producer):
        self.bootstrap, self.producer = bootstrap, producer
        self.pool = f"lanes-{uuid.uuid4().hex[:8]}"
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.logs = []

    def prepare(self):
        topics = [NewTopic(topic, 1, 1) for topic in topics_of(self.pool)]
        if DEAD_TOPIC not in self.admin.list_topics(timeout=10).topics:
            topics.append(NewTopic(DEAD_TOPIC, 1, 1))
        for created in self.admin.create_topics(topics).values():
            created.result(10)
        begin_at_zero(self.bootstrap, self.pool)
        return self

    def log(self):
        self.logs.append(KafkaLaneLog(self.bootstrap, self.pool, self.producer))
        return self.logs[-1]

    async def produce(self, *tasks):
        for task in tasks:
            topic = topic_of(self.pool, task.priority_class)
            await self.producer.send(topic, task.id.encode(), task.SerializeToString())

    async def forget_commits(self):
        future = self.admin.delete_consumer_groups([group_of(self.pool)])[group_of(self.pool)]
        await asyncio.to_thread(future.result, 10)

    async def dead(self):
        def read():
            consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "t", "enable.auto.commit": False})
            partitions = consumer.list_topics(DEAD_TOPIC, timeout=10).topics[DEAD_TOPIC].partitions
            consumer.assign([TopicPartition(DEAD_TOPIC, number, 0) for number in partitions])
            found, ends = [], time.monotonic() + 20
            while time.monotonic() < ends:
                if message := consumer.poll(1.0):
                    found.append(DeadTask.FromString(message.value()).task.id)
                elif found:
                    break
            consumer.close()
            return found

        return await asyncio.to_thread(read)


def begin_at_zero(bootstrap, pool):
    """What `millrace topics apply` does for new lanes; a new group's coordinator needs a moment."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group_of(pool), "enable.auto.commit": False})
    ends = time.monotonic() + 30
    while True:
        try:
            consumer.commit(offsets=[TopicPartition(topic, 0, 0) for topic in topics_of(pool)], asynchronous=False)
            break
        except KafkaException:
            assert time.monotonic() < ends
            time.sleep(0.05)
    consumer.close()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.real)])
async def world(request):
    if request.param == "memory":
        yield InMemory()
        return
    bootstrap = request.getfixturevalue("kafka_bootstrap")
    async with LoopProducer(bootstrap) as producer:
        kafka = await asyncio.to_thread(OnKafka(bootstrap, producer).prepare)
        yield kafka
        for log in kafka.logs:
            await log.shut()


def task(name, priority_class=PRIORITY_CLASS_STANDARD):
    return Task(id=name, priority_class=priority_class)


async def read(log, count, within_s=15.0):
    """The next `count` records as (partition, offset, task id)."""
    records = []
    async with asyncio.timeout(within_s):
        while len(records) < count:
            records += await log.read()
    return [(*r.place, Task.FromString(r.value).id) for r in records]


async def test_records_of_all_lanes_come_in_the_order_of_their_partition(world):
    """One reader has every partition, from the committed offset on."""
    log = world.log()
    stretches = await log.open()
    assert len(stretches) == 4
    assert stretches[STANDARD].committed == Commit(0, "")
    assert stretches[STANDARD].end == 0
    await world.produce(task("a"), task("b"), task("c", PRIORITY_CLASS_BATCH))
    records = await read(log, 3)
    assert [r for r in records if r[0] == STANDARD] == [(STANDARD, 0, "a"), (STANDARD, 1, "b")]
    assert ((PRIORITY_CLASS_BATCH, 0), 0, "c") in records


async def test_a_new_owner_begins_at_the_committed_offset_and_finds_its_metadata(world):
    """Commits are seen by whoever opens the lanes next, together with where the log ends."""
    first = world.log()
    await first.open()
    await world.produce(*(task(f"t{i}") for i in range(5)))
    await read(first, 5)
    await first.commit({STANDARD: Commit(2, "Ag==")})
    assert (await first.committed())[STANDARD] == Commit(2, "Ag==")
    await first.close()
    second = world.log()
    stretch = (await second.open())[STANDARD]
    assert (stretch.committed, stretch.end) == (Commit(2, "Ag=="), 5)
    assert [name for _, _, name in await read(second, 3)] == ["t2", "t3", "t4"]


async def test_the_longest_metadata_fits(world):
    """A full window of 4,096 offsets is 684 characters, and comes back whole."""
    log = world.log()
    await log.open()
    await log.commit({STANDARD: Commit(0, "A" * 684)})
    assert (await log.committed())[STANDARD].metadata == "A" * 684


async def test_lanes_without_a_committed_offset_are_not_read(world):
    """Neither earliest nor latest is guessed: the error says so."""
    await world.forget_commits()
    with pytest.raises(NoCommittedOffsetError):
        await world.log().open()


async def test_a_paused_partition_gives_nothing_until_it_is_resumed(world):
    """Others go on meanwhile, and nothing is lost or repeated."""
    log = world.log()
    await log.open()
    await world.produce(task("a"))
    await read(log, 1)
    log.pause([STANDARD])
    await world.produce(task("b"), task("c", PRIORITY_CLASS_BATCH))
    assert [name for _, _, name in await read(log, 1)] == ["c"]
    log.resume([STANDARD])
    assert [name for _, _, name in await read(log, 1)] == ["b"]


async def test_a_moved_record_comes_again_at_the_tail(world):
    """The same task, in its own lane, behind what was there."""
    log = world.log()
    await log.open()
    await world.produce(task("a"), task("b"))
    await read(log, 2)
    await log.move(task("a"), STANDARD)
    assert await read(log, 1) == [(STANDARD, 2, "a")]


async def test_buried_tasks_are_in_the_dead_letters(world):
    """With their record, so that they can be submitted again."""
    log = world.log()
    await log.bury(DeadTask(task=task("poison"), history=["failed"]))
    assert "poison" in await world.dead()


@pytest.mark.real
async def test_a_record_reaches_the_owner_within_milliseconds(kafka_bootstrap):
    """From the produce's start to the reader, median of 50, on an otherwise idle broker."""
    async with LoopProducer(kafka_bootstrap) as producer:
        world = await asyncio.to_thread(OnKafka(kafka_bootstrap, producer).prepare)
        log = world.log()
        await log.open()
        loop, delays = asyncio.get_running_loop(), []
        for i in range(50):
            began = loop.time()
            await asyncio.gather(world.produce(task(f"t{i}")), read(log, 1))
            delays.append(loop.time() - began)
        await log.shut()
    delays.sort()
    print(f"produce to reader: median {delays[25] * 1000:.1f} ms, worst {delays[-1] * 1000:.1f} ms")
    assert delays[25] < 0.05
