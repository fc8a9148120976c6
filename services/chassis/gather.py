"""What gathers for one receiver goes out together."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Gather(Generic[T]):
    """Gives `send` everything that was put since it was called last.

    After a pause that is in the loop's next turn, otherwise when `gap_s` are over: a message costs far more than what is in it.
    """

    __slots__ = ("_gap_s", "_items", "_loop", "_send", "_sent_at", "_timer")

    def __init__(self, send: Callable[[list[T]], None], gap_s: float = 0.0) -> None:
        self._send = send
        self._gap_s = gap_s
        self._loop = asyncio.get_running_loop()
        self._items: list[T] = []
        self._timer: asyncio.Handle | None = None
        self._sent_at = float("-inf")

    def put(self, *items: T) -> None:
        """Send them with the next message."""
        self._items += items
        if self._timer is None:
            self._timer = (
                self._loop.call_at(self._sent_at + self._gap_s, self.flush)
                if self._gap_s
                else (self._loop.call_soon(self.flush))
            )

    def flush(self) -> None:
        """Send what has gathered now."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._sent_at = self._loop.time()
        if self._items:
            items, self._items = self._items, []
            self._send(items)

    def clear(self) -> None:
        """Forget what has gathered."""
        self._items.clear()
