"""How long text gathers before it is logged and sent."""


class Tick:
    """The tick in seconds: the shortest while the loop has time, then longer the busier it is, up to the longest.

    Every tick costs one pipeline and one message per gateway, so a longer one buys throughput with latency. A busy share lags
    by about a second; the tick follows its value, not its changes, so the two settle where they meet and do not swing.

    >>> tick = Tick(0.010, 0.050)
    >>> tick.adapt(busy=0.6), tick.adapt(busy=0.75), tick.adapt(busy=0.95)
    (0.01, 0.03, 0.05)
    """

    __slots__ = ("_longest_s", "_shortest_s", "length_s")

    BUSY = 0.6
    FULL = 0.9

    def __init__(self, shortest_s: float, longest_s: float) -> None:
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self.length_s = shortest_s

    def adapt(self, busy: float) -> float:
        """The next tick for a loop that is `busy` (0 to 1)."""
        share = min(max((busy - self.BUSY) / (self.FULL - self.BUSY), 0.0), 1.0)
        self.length_s = self._shortest_s + share * (self._longest_s - self._shortest_s)
        return self.length_s

    @property
    def gap_s(self) -> float:
        """The shortest time between two flushes.

        An answer's first text goes at once, but hundreds of answers that start in a second do not make a flush each. A longer
        tick needs no longer gap: what became due just after a flush would wait for both.
        """
        return min(self.length_s / 2, self._shortest_s)
