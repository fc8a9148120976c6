"""How long text gathers before it is logged and sent."""


class Tick:
    """The tick in seconds: the shortest while the loop has time, growing to the longest while it is busy.

    Every tick costs one pipeline and one message per gateway, so a longer one buys throughput with latency.

    >>> tick = Tick(0.010, 0.050)
    >>> tick.adapt(busy=0.9), tick.adapt(busy=0.9), tick.adapt(busy=0.1)
    (0.015, 0.0225, 0.015)
    """

    __slots__ = ("_longest_s", "_shortest_s", "length_s")

    BUSY = 0.6
    STEP = 1.5

    def __init__(self, shortest_s: float, longest_s: float) -> None:
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self.length_s = shortest_s

    def adapt(self, busy: float) -> float:
        """The next tick for a loop that is `busy` (0 to 1)."""
        grown = self.length_s * self.STEP if busy > self.BUSY else self.length_s / self.STEP
        self.length_s = min(max(grown, self._shortest_s), self._longest_s)
        return self.length_s

    @property
    def gap_s(self) -> float:
        """The shortest time between two flushes.

        An answer's first text goes at once, but hundreds of answers that start in a second do not make a flush each. A longer
        tick needs no longer gap: what became due just after a flush would wait for both.
        """
        return min(self.length_s / 2, self._shortest_s)
