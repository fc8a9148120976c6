"""Attempts at a task: how they are numbered, what became of them, when to stop."""

from dataclasses import dataclass, field
from typing import Final

EPOCH_SHIFT: Final = 20
TAKEN_DOWN: Final = 2  # times that a task may take its worker with it


def next_attempt(previous: int, epoch: int) -> int:
    """The number after `previous` under this owner: no two owners ever give the same one.

    >>> next_attempt(0, 3) == (3 << 20) + 1
    True
    >>> next_attempt((3 << 20) + 1, 3) == (3 << 20) + 2
    True
    """
    return max(previous, epoch << EPOCH_SHIFT) + 1


def epoch_of(attempt: int) -> int:
    """The epoch of the owner who gave this number."""
    return attempt >> EPOCH_SHIFT


@dataclass(slots=True)
class History:
    """What became of a task's attempts.

    A failure is the task's or the engine's: it counts against the task. A failover is nobody's fault and never counts: a
    worker drained, an attempt was fenced, Redis forgot. A worker that was lost is a failover too, unless the task took it
    down: it had started there and produced nothing since. Twice in a row is a pattern, not bad luck.
    """

    begun: int = 0
    failures: int = 0
    taken_down: int = 0
    lines: list[str] = field(default_factory=list)

    def failed(self, worker: str, reason: str) -> None:
        """The attempt at `worker` failed and logged no end."""
        self.failures += 1
        self.lines.append(f"failed at {worker}: {reason}")

    def lost(self, worker: str, *, started: bool, got_further: bool) -> None:
        """`worker` was lost while it had the task."""
        self.taken_down = self.taken_down + 1 if started and not got_further else 0
        self.lines.append(f"lost with {worker}" + (", which it had started on" if started else ""))

    def give_up(self, max_attempts: int) -> str:
        """Why the task must not run again; empty if it may.

        >>> history = History()
        >>> history.failed("worker-1", "no such token")
        >>> history.give_up(3), history.give_up(1)
        ('', 'failed 1 times, last at worker-1: no such token')
        """
        if self.failures >= max_attempts:
            return f"failed {self.failures} times, last {self.lines[-1].removeprefix('failed ')}"
        if self.taken_down >= TAKEN_DOWN:
            return f"took its worker down {self.taken_down} times in a row"
        return ""
