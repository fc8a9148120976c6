"""Lanes are Kafka topics.

confluent-kafka's producer, because acknowledgments wait for it; one idempotent producer per router process.
"""

from typing import Final

from millrace.task.v1.task_pb2 import Task
from services.chassis.kafka import LoopProducer
from services.pools.core.lanes import CLASS_NAMES, TRACE_HEADER, topic_of

DEADLINE_HEADER: Final = "deadline"  # Unix milliseconds, so that tools need not decode the value
CLASS_HEADER: Final = "class"


class KafkaTaskSink:
    """Value = the task. No key: what gathers in one linger shares a partition, so a batch is one request to the broker.

    Nothing needs a task's tries in one partition: one dispatcher reads them all, and knows a task by its id.
    """

    def __init__(self, producer: LoopProducer) -> None:
        self._producer = producer

    async def put(self, task: Task, timeout_s: float) -> None:
        """See ports."""
        headers = [
            (DEADLINE_HEADER, b"%d" % task.deadline.ToMilliseconds()),
            (CLASS_HEADER, CLASS_NAMES[task.priority_class].encode()),
        ]
        if task.traceparent:
            headers.append((TRACE_HEADER, task.traceparent.encode()))
        await self._producer.send(
            topic_of(task.pool, task.priority_class), None, task.SerializeToString(), headers, timeout_s
        )
