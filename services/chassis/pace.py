"""When a loop that gathers things to send runs next."""

import asyncio
from collections.abc import Callable


class Pace:
    """Wakes one waiting loop: as soon as asked for, but not within `gap()` seconds of the last time.

    Idle, the first thing to send goes at once; busy, things gather for at least the gap.
    """

    __slots__ = ("_awake", "_due", "_gap", "_last", "_loop", "_timer")

    def __init__(self, gap: Callable[[], float]) -> None:
        self._gap = gap
        self._awake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._last = 0.0
        self._due = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def wake(self, within_s: float = 0.0) -> None:
        """Wake it in `within_s` seconds at the latest, or when the gap is over."""
        now = self._loop.time()
        due = max(now + within_s, self._last + self._gap())
        if due >= self._due:
            return
        self._due = due
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if due <= now:
            self._awake.set()
        else:
            self._timer = self._loop.call_at(due, self._awake.set)

    async def wait(self) -> None:
        """Wait to be woken. Only one loop waits."""
        await self._awake.wait()
        self._awake.clear()
        self._due, self._timer = float("inf"), None
        self._last = self._loop.time()
