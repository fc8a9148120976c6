"""What waits to be sent on one stream: all that gathered goes out as one message."""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Items for one reader. Never full: what it may hold is bounded by what its writers promise (credits, one signal)."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._wake = asyncio.Event()
        self.closed = False

    def put(self, item: T) -> None:
        """Send it with the next message."""
        self._items.append(item)
        self._wake.set()

    def close(self) -> None:
        """No message after those that wait."""
        self.closed = True
        self._wake.set()

    async def gather(self) -> list[T] | None:
        """Everything since the last call, once there is something; None when closed."""
        if not self.closed:
            await self._wake.wait()
        self._wake.clear()
        items, self._items = self._items, []
        return None if self.closed and not items else items
