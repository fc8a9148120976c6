"""The committed offsets that a pool's dispatcher starts from.

A dispatcher never guesses where to begin: the earliest record could run finished work again, the latest would lose accepted work.
So whoever makes the lanes also commits their first offset, once.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from services.chassis.clock import monotonic
from services.pools.core.lanes import group_of, topics_of

T = TypeVar("T")

TIMEOUT_S: Final = 30.0
# What a broker says of partitions and groups that were made a moment ago.
_SOON: Final = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}


class OffsetsUnclearError(RuntimeError):
    """A lane holds records but no offset is committed: a person must say where to begin."""


def initialise_group(bootstrap: str, pool: str, begin: Literal["", "beginning", "end"] = "") -> list[str]:
    """Commit a first offset for each partition of the pool's lanes that has none; returns them, as `topic-partition`.

    A lane that is empty begins at its end. For one that holds records, `begin` says where: `beginning` runs what is in it
    unless its claim says that it ended, `end` passes it over. With `begin` also offsets beyond the end of a lane, whose log was
    lost, are set anew. Never touches any other offset. The lanes exist, and nobody owns the pool meanwhile.
    Raises OffsetsUnclearError, KafkaException.
    """
    # A plain consumer that never subscribes: the admin client's calls for group offsets crash in librdkafka 2.16 while the
    # group's coordinator is still being found.
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group_of(pool), "enable.auto.commit": False, "log_level": 3}
    )
    try:
        partitions = _patiently(lambda: _partitions(consumer, topics_of(pool)))
        wanted: list[TopicPartition] = []
        for partition in _patiently(lambda: _committed(consumer, partitions)):
            first, end = _patiently(lambda: consumer.get_watermark_offsets(partition, TIMEOUT_S))  # noqa: B023 - called at once
            if 0 <= partition.offset <= end or (partition.offset > end and not begin):
                continue
            if not begin and end > first:
                raise OffsetsUnclearError(
                    f"{_name(partition)} holds {end - first} records and no offset is committed for it; say where to begin: "
                    "--offsets beginning (run what did not end) or --offsets end (pass all of it over)"
                )
            start = first if begin == "beginning" else end
            wanted.append(TopicPartition(partition.topic, partition.partition, start))
        if wanted:
            _patiently(lambda: _commit(consumer, wanted))
        return [_name(partition) for partition in wanted]
    finally:
        consumer.close()


def _partitions(consumer: Consumer, topics: Sequence[str]) -> list[TopicPartition]:
    known = consumer.list_topics(timeout=TIMEOUT_S).topics
    for topic in topics:
        partitions = known[topic].partitions.values() if topic in known else ()
        if not partitions or any(partition.leader < 0 for partition in partitions):
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, f"{topic} has no leader yet"))
    return [TopicPartition(topic, number) for topic in topics for number in known[topic].partitions]


def _committed(consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    return _checked(consumer.committed(partitions, TIMEOUT_S))


def _commit(consumer: Consumer, offsets: list[TopicPartition]) -> None:
    _checked(consumer.commit(offsets=offsets, asynchronous=False) or [])


def _checked(partitions: list[TopicPartition]) -> list[TopicPartition]:
    for partition in partitions:
        if partition.error:
            raise KafkaException(partition.error)
    return partitions


def _patiently(look: Callable[[], T]) -> T:
    ends = monotonic() + TIMEOUT_S
    while True:
        try:
            return look()
        except KafkaException as failure:
            if failure.args[0].code() not in _SOON or monotonic() > ends:
                raise
        time.sleep(0.1)


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}-{partition.partition}"
