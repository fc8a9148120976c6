"""How much of the lanes may be in memory?

Each class has a quarter, so that a flood in one lane never stops the reading of another.
"""

from collections.abc import Iterable
from typing import Final

from millrace.task.v1.task_pb2 import PriorityClass
from services.dispatcher.core.task_state import Partition
from services.pools.core.lanes import CLASSES

OVERHEAD: Final = 2048  # bytes that a task costs here beside its record
RESUME: Final = 0.8


class ReadAhead:
    """Bytes in memory by class, and which lanes are paused. `limit` is for the whole pool."""

    def __init__(self, limit: int) -> None:
        self._limit = limit // len(CLASSES)
        self._bytes: dict[PriorityClass, int] = dict.fromkeys(CLASSES, 0)
        self._paused: set[PriorityClass] = set()

    def entered(self, priority_class: PriorityClass, size: int) -> None:
        """A record of `size` bytes was read."""
        self._bytes[priority_class] += size + OVERHEAD

    def left(self, priority_class: PriorityClass, size: int) -> None:
        """Its task was forgotten."""
        self._bytes[priority_class] -= size + OVERHEAD

    def changes(self, partitions: Iterable[Partition]) -> tuple[list[Partition], list[Partition]]:
        """Partitions to pause and partitions to resume now."""
        pause = {c for c, size in self._bytes.items() if size > self._limit} - self._paused
        resume = {c for c in self._paused if self._bytes[c] < self._limit * RESUME}
        if not pause and not resume:
            return [], []
        self._paused = (self._paused | pause) - resume
        return [p for p in partitions if p[0] in pause], [p for p in partitions if p[0] in resume]
