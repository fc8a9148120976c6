"""How much work the worker asks for: never more than its free slots, nothing from an engine in trouble."""

FAULTS_IN_A_ROW = 3
LONGEST_PAUSE_S = 10.0


def free_slots(slots: int, running: int, ending: int) -> int:
    """Slots that are free for more work.

    A task frees its slot when the engine is done with it; its end routine needs none. Only when the ends themselves pile up
    (Kafka is away) do those beyond one per slot take slots, so that their number stays bounded.

    >>> free_slots(slots=8, running=3, ending=2), free_slots(slots=8, running=3, ending=11)
    (5, 2)
    """
    return max(0, slots - running - max(0, ending - slots))


class CreditLedger:
    """What was promised to the dispatcher on the present stream and not used yet."""

    __slots__ = ("outstanding",)

    def __init__(self) -> None:
        self.outstanding = 0

    def due(self, free: int) -> int:
        """Credits to send now, so that the outstanding ones equal the free slots; they count as sent."""
        more = max(0, free - self.outstanding)
        self.outstanding += more
        return more

    def used(self) -> None:
        """An assignment came in."""
        self.outstanding = max(0, self.outstanding - 1)

    def forget(self) -> None:
        """The stream ended, and with it its credits."""
        self.outstanding = 0


class EngineHealth:
    """Should this engine get more work? Not when it says no, and for a while not after faults in a row.

    One poisoned task must not stop the engine for the others, an engine that fails everything must not burn the attempts of
    every task in the queue: from the third fault in a row on it pauses, 1 s and then twice as long each time.
    """

    __slots__ = ("_faults", "_paused_until", "ready")

    def __init__(self) -> None:
        self.ready = False  # by its own word
        self._faults = 0
        self._paused_until = 0.0

    def fault(self, now: float) -> None:
        """A request failed in the engine."""
        self._faults += 1
        if self._faults >= FAULTS_IN_A_ROW:
            self._paused_until = now + min(2.0 ** (self._faults - FAULTS_IN_A_ROW), LONGEST_PAUSE_S)

    def away(self) -> None:
        """It could not be reached: no work until it says that it is ready."""
        self.ready = False

    def success(self) -> None:
        """A request came to its end."""
        self._faults = 0

    def takes_work(self, now: float) -> bool:
        """May it be given more?"""
        return self.ready and now >= self._paused_until
