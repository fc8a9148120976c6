"""How many tasks of a pool lie in Kafka beyond the committed offsets. Asked only while the pool's dispatcher says nothing."""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from services.chassis.clock import monotonic
from services.pools.core.lanes import group_of, topics_of

log = logging.getLogger(__name__)

LOOK_S: Final = 10.0
OLD_S: Final = 3 * LOOK_S
TIMEOUT_S: Final = 5.0


class KafkaLag:
    """`run` until cancelled; `silent` are the pools to look at."""

    def __init__(self, bootstrap: str, silent: Callable[[], Collection[str]]) -> None:
        self._bootstrap = bootstrap
        self._silent = silent
        self._seen: dict[str, tuple[int, float]] = {}

    def latest(self, pool: str) -> int | None:
        """Tasks beyond the committed offsets; None: unknown. More than wait: what runs is among them."""
        count, at = self._seen.get(pool, (0, float("-inf")))
        return count if monotonic() - at < OLD_S else None

    async def run(self) -> None:
        """Look now and then."""
        while True:
            for pool in self._silent():
                try:
                    self._seen[pool] = (await asyncio.to_thread(lag_of, self._bootstrap, pool), monotonic())
                except KafkaException as reason:
                    log.warning("the lag of pool %s is unknown: %s", pool, reason)
            await asyncio.sleep(LOOK_S)


def lag_of(bootstrap: str, pool: str) -> int:
    """Records beyond the committed offsets of all lanes of a pool. Blocks; raises KafkaException."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group_of(pool), "enable.auto.commit": False})
    try:
        topics = consumer.list_topics(timeout=TIMEOUT_S).topics
        places = [
            TopicPartition(topic, number)
            for topic in topics_of(pool)
            if topic in topics
            for number in topics[topic].partitions
        ]
        total = 0
        for place in consumer.committed(places, timeout=TIMEOUT_S):
            low, high = consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
            total += max(high - max(place.offset, low), 0)
        return total
    finally:
        consumer.close()
