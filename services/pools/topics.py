"""The Kafka topics that an installation needs, and where each pool's dispatcher begins. They are never made by auto-creation.

The only module of the pools library that speaks to Kafka: the command line and the operator use it, no service does.
"""

import asyncio
import time
from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from services.pools.core.lanes import DEAD_TOPIC, USAGE_TOPIC, all_topics, group_of, topics_of

HOUR_MS: Final = 3_600_000
TIMEOUT_S: Final = 30.0
# The longest deadline is that of batch work, 24 h; a record must outlive it by a day.
LANE_RETENTION_MS: Final = 48 * HOUR_MS
RETENTION_MS: Final = {USAGE_TOPIC: 14 * 24 * HOUR_MS, DEAD_TOPIC: 30 * 24 * HOUR_MS}

_AWAY: Final = frozenset(
    (
        KafkaError._TRANSPORT,  # noqa: SLF001 - its own name for it
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
    )
)


class TopicsError(Exception):
    """A pool's lanes are not as they must be; the message says why in one sentence."""


class Offsets(StrEnum):
    """Where a pool's dispatcher shall begin in a lane that has no (possible) committed offset."""

    ASK = "ask"
    BEGINNING = "beginning"
    END = "end"


class Lanes:
    """Makes the topics of one pool after the other, beside the event loop."""

    def __init__(self, bootstrap: str, *, partitions: int, replication: int, timeout_s: float = 10.0) -> None:
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._replication = replication
        self._timeout_s = timeout_s

    async def ensure(self, pool: str) -> None:
        """The pool's lanes exist, each with a first offset, and so do the topics of usage and dead letters.

        Raises TopicsError. What exists already is left as it is.
        """
        await asyncio.to_thread(self._ensure, pool)

    def _ensure(self, pool: str) -> None:
        try:
            admin = AdminClient({"bootstrap.servers": self._bootstrap})
            new = create(admin, all_topics([pool]), self._partitions, self._replication, self._timeout_s)
            lost = begin(self._bootstrap, pool, new, Offsets.ASK, self._timeout_s)
        except KafkaException as refused:
            raise TopicsError(_sentence(refused)) from None
        except KeyError as topic:
            raise TopicsError(f"Kafka does not show topic {topic} yet") from None
        except TimeoutError:
            raise TopicsError("Kafka cannot be reached") from None
        if lost:
            raise TopicsError(
                f"no committed offset, but records, in: {', '.join(lost)}; say where to begin: millrace topics apply --offsets"
            )


def settings_of(topic: str, replication: int) -> dict[str, str]:
    """What a topic is made with, whatever the broker's own defaults are.

    With the default of Kafka, 1, `acks=all` may be one copy: an acknowledged task would be gone with one broker. Two copies
    leave no choice: if both had to be there, one broker down would stop the topic.

    >>> [settings_of("usage", copies)["min.insync.replicas"] for copies in (1, 2, 3)]
    ['1', '1', '2']
    """
    return {
        "cleanup.policy": "delete",
        "min.insync.replicas": "2" if replication >= 3 else "1",
        "retention.ms": str(RETENTION_MS.get(topic, LANE_RETENTION_MS)),
    }


def create(
    admin: AdminClient, names: Iterable[str], partitions: int, replication: int, timeout_s: float = TIMEOUT_S
) -> list[str]:
    """Create those that are missing; their names. Raises KafkaException."""
    there = admin.list_topics(timeout=timeout_s).topics
    new = [
        NewTopic(
            name,
            num_partitions=partitions,
            replication_factor=replication,
            config=settings_of(name, replication),
        )
        for name in names
        if name not in there
    ]
    if not new:
        return []
    for future in admin.create_topics(new, operation_timeout=timeout_s).values():
        try:
            future.result(timeout_s)
        except KafkaException as refused:  # somebody else was quicker
            if refused.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    return [topic.topic for topic in new]


def begin(bootstrap: str, pool: str, new: Collection[str], offsets: Offsets, timeout_s: float = TIMEOUT_S) -> list[str]:
    """Commit a first offset in each of a pool's lanes that has none; the partitions that need a decision. Raises KafkaException.

    The first question to the group's coordinator makes Kafka create `__consumer_offsets`, which would otherwise delay the
    dispatcher's first commit by seconds.
    """
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group_of(pool), "enable.auto.commit": False})
    try:
        topics = consumer.list_topics(timeout=timeout_s).topics
        places = [TopicPartition(topic, n) for topic in topics_of(pool) for n in topics[topic].partitions]
        first = list[TopicPartition]()
        lost = list[str]()
        for place in _committed(consumer, places, timeout_s):
            low, high = (0, 0) if place.topic in new else consumer.get_watermark_offsets(place, timeout_s)
            if 0 <= place.offset <= high:
                continue
            if offsets is Offsets.ASK and low < high:
                lost.append(f"{place.topic}-{place.partition}")
                continue
            first.append(TopicPartition(place.topic, place.partition, high if offsets is Offsets.END else low))
        if first:
            consumer.commit(offsets=first, asynchronous=False)
    finally:
        consumer.close()
    return lost


def _committed(consumer: Consumer, places: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return consumer.committed(places, timeout=1.0)
        except KafkaException:  # the question that starts the creation may go unanswered
            if time.monotonic() > deadline:
                raise


def _sentence(refused: KafkaException) -> str:
    error = refused.args[0]
    return "Kafka cannot be reached" if error.code() in _AWAY else f"Kafka refuses: {error.str()}"
