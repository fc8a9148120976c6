"""Usage records in the topic `usage`."""

from typing import Final

from millrace.task.v1.task_pb2 import UsageRecord
from services.chassis.kafka import LoopProducer

TOPIC: Final = "usage"


class KafkaUsageLog:
    """`UsageLog` on a running `LoopProducer`. The key is the task's id, so all records of a task lie in one partition."""

    def __init__(self, producer: LoopProducer) -> None:
        self._producer = producer

    async def write(self, record: UsageRecord) -> None:
        """Return once the record is committed."""
        await self._producer.send(TOPIC, record.task.encode(), record.SerializeToString())
