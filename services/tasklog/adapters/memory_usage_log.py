"""Usage records in memory, for tests."""

from millrace.task.v1.task_pb2 import UsageRecord
from services.chassis.kafka import KafkaAwayError


class MemoryUsageLog:
    """`UsageLog` in a list. `away` = True behaves as Kafka that does not confirm."""

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []
        self.away = False

    async def write(self, record: UsageRecord) -> None:
        """Keep a copy of the record."""
        if self.away:
            raise KafkaAwayError("the usage log in memory is away")
        kept = UsageRecord()
        kept.CopyFrom(record)
        self.records.append(kept)

    def newest(self) -> dict[str, UsageRecord]:
        """What readers of the topic keep: of each task, the record with the newest gen."""
        return {record.task: record for record in sorted(self.records, key=lambda record: record.gen)}
