"""Very many deadlines that are coarse and mostly cancelled: one bucket per tick, O(1) to set and to cancel.

After G. Varghese, A. Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 5, with a dictionary in place of
the array: only ticks that hold something exist, and there is no longest deadline.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class TimerWheel(Generic[T]):
    """Items by the tick in which they are due, in seconds of any clock that does not go back.

    An item is due at the first `advance` at or after its instant, never before, and at most `tick_s` late by the wheel's
    own doing. `schedule` returns the tick, which the caller keeps to cancel with: 0 is never one, so 0 can mean "none".

    >>> wheel = TimerWheel[str](tick_s=0.5, now=100.0)
    >>> tick = wheel.schedule("ping", 101.0)
    >>> wheel.advance(100.9), wheel.advance(101.0)
    ([], ['ping'])
    """

    __slots__ = ("_buckets", "_start", "_tick_s", "_turned")

    def __init__(self, tick_s: float, now: float) -> None:
        self._tick_s = tick_s
        self._start = now
        self._turned = 0  # the last tick that was emptied
        self._buckets: dict[int, set[T]] = {}

    def __len__(self) -> int:
        """How many items wait."""
        return sum(map(len, self._buckets.values()))

    def schedule(self, item: T, at: float) -> int:
        """Make `item` due at `at`; the same item may wait in several ticks, once in each."""
        tick = max(self._turned + 1, -int((self._start - at) // self._tick_s))
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = set()
        bucket.add(item)
        return tick

    def cancel(self, item: T, tick: int) -> None:
        """Forget `item` in that tick; nothing happens if it was due already."""
        bucket = self._buckets.get(tick)
        if bucket is not None:
            bucket.discard(item)
            if not bucket:
                del self._buckets[tick]

    def advance(self, now: float) -> list[T]:
        """Take what is due by `now`, earlier ticks first, in no order within a tick."""
        tick = int((now - self._start) // self._tick_s)
        passed, self._turned = self._turned, max(self._turned, tick)
        if self._turned - passed > len(self._buckets):  # after a long pause: visit what exists instead of each tick
            due = sorted(t for t in self._buckets if t <= tick)
        else:
            due = [t for t in range(passed + 1, tick + 1) if t in self._buckets]
        return [item for t in due for item in self._buckets.pop(t)]
