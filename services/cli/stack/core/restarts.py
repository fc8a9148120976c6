"""When does a process that died start again?

At once the first time, then after pauses that double up to a limit; one that stayed up for a while starts at once again.
"""

from dataclasses import dataclass

FIRST_S = 0.1
LONGEST_S = 5.0
SETTLED_S = 10.0


@dataclass(slots=True)
class Restarts:
    """The record of one process. `failures` counts deaths in a row, `count` all restarts."""

    count: int = 0
    failures: int = 0

    def died(self, up_s: float) -> float:
        """It ran for `up_s` seconds; how long to wait before the next start.

        >>> record = Restarts()
        >>> [record.died(up_s=1) for _ in range(4)], record.died(up_s=60)
        ([0.0, 0.1, 0.2, 0.4], 0.0)
        """
        self.count += 1
        self.failures = 1 if up_s >= SETTLED_S else self.failures + 1
        return 0.0 if self.failures == 1 else min(LONGEST_S, FIRST_S * 2.0 ** (self.failures - 2))
