"""Lanes in this process, for tests."""

from collections import defaultdict

from millrace.task.v1.task_pb2 import Task
from services.chassis.kafka import KafkaAwayError
from services.pools.core.lanes import topic_of


class MemoryTaskSink:
    """`lanes` holds what was committed. `away` refuses; `loses_answers` commits and then does not say so."""

    def __init__(self) -> None:
        self.lanes: defaultdict[str, list[Task]] = defaultdict(list)
        self.away = False
        self.loses_answers = False

    async def put(self, task: Task, timeout_s: float) -> None:
        """See ports."""
        if self.away:
            raise KafkaAwayError("no broker")
        committed = Task()
        committed.CopyFrom(task)
        self.lanes[topic_of(task.pool, task.priority_class)].append(committed)
        if self.loses_answers:
            raise KafkaAwayError(f"no confirmation within {timeout_s:.1f} s")
