"""How long do tasks take, and how much work is that?

Learned from what ended: seconds of service, and seconds per unit of the estimated token cost. The ratio carries the estimate's
own bias, so sums over many waiting tasks come out right even where the estimates are wrong by a constant factor.
"""

from collections import deque
from statistics import median
from typing import Final

from millrace.task.v1.task_pb2 import PriorityClass
from services.pools.core.lanes import CLASSES

ENOUGH: Final = 20  # ends before a class's own figures are believed
SMOOTHING: Final = 1 / 64
RECENT: Final = 101
# Before the first end: an engine that makes 200 tokens a second, a task of 200 tokens.
GUESS_PER_COST: Final = 0.0025
GUESS_S: Final = 1.0


class _Learned:
    """Means over about the last 64 ends, medians over the last 101."""

    def __init__(self) -> None:
        self.ends = 0
        self.seconds = 0.0
        self.cost = 0.0
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self._medians = (0.0, 0.0)
        self._medians_at = 0

    def learn(self, cost: float, seconds: float) -> None:
        self.ends += 1
        step = max(SMOOTHING, 1 / self.ends)
        self.seconds += (seconds - self.seconds) * step
        self.cost += (cost - self.cost) * step
        self._recent.append((seconds, seconds / cost))

    def medians(self) -> tuple[float, float]:
        """Of the seconds, and of the seconds per cost; looked at anew after each eighth end."""
        if self.ends - self._medians_at >= min(8, self.ends):
            self._medians = median(s for s, _ in self._recent), median(r for _, r in self._recent)
            self._medians_at = self.ends
        return self._medians


class ServiceTimes:
    """What a pool has learned, per class once the class has enough ends of its own."""

    def __init__(self) -> None:
        self._pool = _Learned()
        self._classes = {priority_class: _Learned() for priority_class in CLASSES}

    def learn(self, priority_class: PriorityClass, cost: float, seconds: float) -> None:
        """A task that was estimated at `cost` took `seconds` from its assignment to its end."""
        self._pool.learn(cost, seconds)
        self._classes[priority_class].learn(cost, seconds)

    @property
    def ends(self) -> int:
        """Tasks that it was learned from."""
        return self._pool.ends

    @property
    def mean_s(self) -> float:
        """Mean service time of a task."""
        return self._pool.seconds if self._pool.ends else GUESS_S

    def per_cost(self, priority_class: PriorityClass) -> float:
        """Seconds of service for one unit of estimated cost."""
        learned = self._of(priority_class)
        return learned.seconds / learned.cost if learned.ends else GUESS_PER_COST

    def at_least(self, priority_class: PriorityClass, cost: float) -> float:
        """Seconds that a task can hardly do without: half of the tasks like it take longer.

        The smaller of the median service time and the median scaled by its cost, so that neither a long estimate nor a
        neighbour's long answers condemn a task that would have made it. 0 until enough is known.
        """
        learned = self._of(priority_class)
        if learned.ends < ENOUGH:
            return 0.0
        seconds, ratio = learned.medians()
        return min(seconds, ratio * cost)

    def _of(self, priority_class: PriorityClass) -> _Learned:
        own = self._classes[priority_class]
        return own if own.ends >= ENOUGH else self._pool
