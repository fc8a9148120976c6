"""What the router needs from the world, beside the claims and logs of `services.tasklog.ports`."""

from typing import Protocol

from millrace.dispatch.v1.dispatch_pb2 import PoolSignal
from millrace.task.v1.task_pb2 import Task


class TaskSink(Protocol):
    """The lanes: where an accepted task goes."""

    async def put(self, task: Task, timeout_s: float) -> None:
        """Return once the record is committed in the lane of the task's pool and class.

        Raises services.chassis.kafka.KafkaAwayError: then the record may be there or may appear later.
        """
        ...


class PoolSignals(Protocol):
    """What the pools' dispatchers said last."""

    def latest(self, pool: str) -> PoolSignal | None:
        """None: nobody speaks for the pool at present."""
        ...
