"""A pool's lanes in Kafka.

`confluent_kafka.Consumer` with all partitions assigned by hand: there is one owner, chosen by a lease, and nothing to rebalance.
It waits for records in a thread of its own, without holding the interpreter; a record reaches the loop a fraction of a
millisecond after the broker sent it, and an idle pool costs five wake-ups a second.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from millrace.task.v1.task_pb2 import DeadTask, Task
from services.chassis.kafka import KafkaAwayError, LoopProducer
from services.dispatcher.core.offsets import Commit
from services.dispatcher.core.task_state import Partition, Place
from services.dispatcher.ports import NoCommittedOffsetError, Record, Stretch
from services.pools.core.lanes import CLASSES, DEAD_TOPIC, MOVED_HEADER, TRACE_HEADER, group_of, topic_of

T = TypeVar("T")

BATCH: Final = 500
IDLE_S: Final = 0.2
PATIENCE_S: Final = 5.0


class KafkaLaneLog:
    """`LaneLog` of one pool. Connects in the background; `open` is the first call that waits for the broker."""

    def __init__(self, bootstrap: str, pool: str, producer: LoopProducer) -> None:
        self._pool = pool
        self._producer = producer
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"lanes {pool}")
        self._topics = {topic_of(pool, priority_class): priority_class for priority_class in CLASSES}
        self._assigned: list[TopicPartition] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group_of(pool),
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                # The broker answers as soon as there is one record; librdkafka keeps a little ahead of the loop. It must not be
                # told to keep less: a partition that is left out of one request waits for that request's 500 ms.
                "fetch.min.bytes": 1,
                "fetch.wait.max.ms": 500,
                "queued.max.messages.kbytes": 16_384,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "log_level": 3,
            }
        )

    async def open(self) -> dict[Partition, Stretch]:
        """Look up partitions, commits and watermarks, then assign."""
        return await self._call(self._open)

    async def read(self) -> list[Record]:
        """One wait in the thread, then whatever else has arrived."""
        messages = await self._call(self._poll)
        records: list[Record] = []
        for message in messages:
            if error := message.error():
                raise KafkaAwayError(f"lane {message.topic()}: {error.str()}")
            partition = self._topics[message.topic()], message.partition()
            records.append(Record(Place(partition, message.offset()), message.value() or b""))
        return records

    def pause(self, partitions: Sequence[Partition]) -> None:
        """What was fetched of them is dropped inside the client."""
        self._consumer.pause([self._place(p) for p in partitions])

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Fetch again from where they were paused."""
        self._consumer.resume([self._place(p) for p in partitions])

    async def committed(self) -> dict[Partition, Commit]:
        """Ask the group's coordinator."""
        return await self._aside(self._committed, self._assigned)

    async def commit(self, commits: Mapping[Partition, Commit]) -> None:
        """One request to the coordinator, whose answer is awaited in another thread than the reader's."""
        offsets = [self._place(p, commit.offset, commit.metadata) for p, commit in commits.items()]

        def store() -> None:
            for stored in self._consumer.commit(offsets=offsets, asynchronous=False) or ():
                if stored.error:
                    raise KafkaException(stored.error)

        await self._aside(store)

    async def move(self, task: Task, partition: Partition) -> None:
        """The producer picks the partition by the key, as it did the first time."""
        headers = [(MOVED_HEADER, b"1"), (TRACE_HEADER, task.traceparent.encode())]
        await self._producer.send(
            topic_of(self._pool, partition[0]), task.id.encode(), task.SerializeToString(), headers
        )

    async def bury(self, dead: DeadTask) -> None:
        """Keyed by task, like every record."""
        await self._producer.send(DEAD_TOPIC, dead.task.id.encode(), dead.SerializeToString())

    async def close(self) -> None:
        """Keep the connection: whoever stands by may own the pool again at once."""
        await self._call(self._consumer.unassign)

    async def shut(self) -> None:
        """Close the connection too."""
        await self._call(self._consumer.close)
        self._threads.shutdown()

    def _open(self) -> dict[Partition, Stretch]:
        places: list[TopicPartition] = []
        for topic in self._topics:
            metadata = self._consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic]
            if metadata.error:
                raise NoCommittedOffsetError(f"topic {topic}: {metadata.error.str()}; run: millrace topics apply")
            places += [TopicPartition(topic, number) for number in metadata.partitions]
        stretches: dict[Partition, Stretch] = {}
        start: list[TopicPartition] = []
        commits = self._committed(places)
        for place in places:
            partition = self._topics[place.topic], place.partition
            commit = commits[partition]
            first, end = self._consumer.get_watermark_offsets(place, timeout=PATIENCE_S)
            if commit.offset > end:
                raise NoCommittedOffsetError(
                    f"{place.topic}-{place.partition} ends at {end}, but {commit.offset} is committed: its log was lost or made "
                    "anew; run: millrace topics apply --offsets beginning"
                )
            if commit.offset < first:  # retention: every deadline of what is gone passed a day ago
                commit = Commit(first, "")
            stretches[partition] = Stretch(commit, end)
            start.append(TopicPartition(place.topic, place.partition, commit.offset))
        self._assigned = places
        self._consumer.assign(start)
        return stretches

    def _committed(self, places: Sequence[TopicPartition]) -> dict[Partition, Commit]:
        commits: dict[Partition, Commit] = {}
        for place in self._consumer.committed(list(places), timeout=PATIENCE_S):
            if place.error:
                raise KafkaException(place.error)
            if place.offset < 0:
                raise NoCommittedOffsetError(
                    f"group {group_of(self._pool)} has no committed offset for {place.topic}-{place.partition}; "
                    "run: millrace topics apply"
                )
            commits[self._topics[place.topic], place.partition] = Commit(place.offset, place.metadata or "")
        return commits

    def _poll(self) -> list[Any]:
        message = self._consumer.poll(IDLE_S)
        return [] if message is None else [message, *self._consumer.consume(BATCH, 0)]

    def _place(self, partition: Partition, offset: int = -1001, metadata: str = "") -> TopicPartition:
        topic = topic_of(self._pool, partition[0])
        return (
            TopicPartition(topic, partition[1], offset, metadata)
            if metadata
            else TopicPartition(topic, partition[1], offset)
        )

    async def _call(self, what: Callable[[], T]) -> T:
        """In the reader's thread, one after another."""
        return await _translated(asyncio.get_running_loop().run_in_executor(self._threads, what))

    async def _aside(self, what: Callable[..., T], *args: Any) -> T:
        """In another thread: the reader's may be waiting for records."""
        return await _translated(asyncio.get_running_loop().run_in_executor(None, what, *args))


async def _translated(future: "asyncio.Future[T]") -> T:
    try:
        return await future
    except KafkaException as failure:
        error = failure.args[0]
        words = error.str() if isinstance(error, KafkaError) else str(error)
        raise KafkaAwayError(f"Kafka: {words}") from failure
