"""Whose deadline passes next?

A wheel of tenths of a second instead of a heap: most tasks leave long before their deadline, and leaving costs nothing here.
"""

import math
from typing import Final

TICKS_PER_S: Final = 10


class Deadlines:
    """Tasks by deadline, in Unix seconds. A task may be named late, by a tenth of a second at most, never early."""

    def __init__(self, now: float) -> None:
        self._next = math.floor(now * TICKS_PER_S)  # the tick that was not looked at yet
        self._ticks: dict[int, set[str]] = {}

    def add(self, task: str, deadline: float) -> None:
        """Adding it twice is the same as once."""
        self._ticks.setdefault(self._tick(deadline), set()).add(task)

    def discard(self, task: str, deadline: float) -> None:
        """The task waits no more."""
        # A deadline that was already past when it was added stands under a later tick; its task is named once, in vain.
        tasks = self._ticks.get(math.ceil(deadline * TICKS_PER_S))
        if tasks:
            tasks.discard(task)

    def passed(self, now: float) -> list[str]:
        """Tasks whose deadline passed since the last call."""
        until = math.floor(now * TICKS_PER_S)
        tasks: list[str] = []
        for tick in range(self._next, until + 1) if until - self._next < len(self._ticks) else self._due(until):
            tasks.extend(self._ticks.pop(tick, ()))
        self._next = max(self._next, until + 1)
        return tasks

    def _tick(self, deadline: float) -> int:
        return max(math.ceil(deadline * TICKS_PER_S), self._next)

    def _due(self, until: int) -> list[int]:
        return sorted(tick for tick in self._ticks if tick <= until)
