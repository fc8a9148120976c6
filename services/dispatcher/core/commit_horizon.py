"""When may an ended task's record be counted as finished?

Redis may forget what it was told within the last second or so (`appendfsync everysec`). An end therefore counts only once it is
older than that and Redis is still the same run; until then the record could be needed again.
"""

from collections import deque


class CommitHorizon:
    """Ends in the order they came, each for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: deque[tuple[float, str, int]] = deque()

    def __len__(self) -> int:
        return len(self._ends)

    def ended(self, task: str, attempt: int, now: float) -> None:
        """The task's end was written by `attempt`."""
        self._ends.append((now + self._seconds, task, attempt))

    def ready(self, now: float) -> bool:
        """Did any end pass the horizon?"""
        return bool(self._ends) and self._ends[0][0] <= now

    def due(self, now: float) -> list[tuple[str, int]]:
        """(task, attempt) of ends that passed the horizon, oldest first; each is given once."""
        due = []
        while self._ends and self._ends[0][0] <= now:
            _, task, attempt = self._ends.popleft()
            due.append((task, attempt))
        return due
