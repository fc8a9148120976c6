"""The generic cell rate algorithm (ITU-T I.371, 1993) with costs: one number per bucket, no windows, exact.

The number is the theoretical arrival time `tat`, the instant at which the bucket would be full again. A bucket that was
never used, or was forgotten after that instant, has tat 0 and is full.
"""

from dataclasses import dataclass
from typing import Final

# Seconds: the resolution of the server's clock. A caller that waits exactly `retry_after_s` is admitted although the sum of
# two floats may miss the instant by a rounding.
RESOLUTION_S: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Limit:
    """`rate` units (> 0) are gained in each `period_s` seconds (> 0); at most `burst` (>= 1) can be taken at once."""

    rate: float
    period_s: float
    burst: float

    @property
    def interval_s(self) -> float:
        """Seconds in which one unit is gained."""
        return self.period_s / self.rate


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one bucket says. `tat` is to be kept; a refusal leaves it as it was.

    `retry_after_s`: until this cost would be admitted; 0 when it was, None when it never would be (cost > burst).
    `remaining`: units that could be taken now, after this. `reset_s`: until the bucket is full.
    """

    allowed: bool
    tat: float
    retry_after_s: float | None
    remaining: float
    reset_s: float


def take(limit: Limit, tat: float, cost: float, now: float) -> Verdict:
    """Take `cost` units (>= 0) at `now` (Unix s) from the bucket whose theoretical arrival time is `tat`.

    Ten a minute and three at once: three pass, the fourth waits for one unit.

    >>> limit, tat = Limit(rate=10, period_s=60, burst=3), 0.0
    >>> for _ in range(3):
    ...     tat = take(limit, tat, 1, now=1000.0).tat
    >>> take(limit, tat, 1, now=1000.0)
    Verdict(allowed=False, tat=1018.0, retry_after_s=6.0, remaining=0.0, reset_s=18.0)
    >>> take(limit, tat, 1, now=1006.0).allowed
    True
    """
    interval, depth = limit.interval_s, limit.burst * limit.interval_s
    after = max(tat, now) + cost * interval
    wait = after - depth - now
    allowed = cost <= limit.burst and wait <= RESOLUTION_S
    kept = after if allowed else tat
    debt = max(kept - now, 0.0)
    retry_after = 0.0 if allowed else (wait if cost <= limit.burst else None)
    return Verdict(allowed, kept, retry_after, max(limit.burst - debt / interval, 0.0), debt)
