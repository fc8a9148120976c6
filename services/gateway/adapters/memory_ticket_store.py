"""Tickets in memory, for tests."""

import time
from collections.abc import Callable


class MemoryTicketStore:
    """`TicketStore` in a dictionary. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._owners: dict[bytes, tuple[bytes, float]] = {}

    async def put(self, digest: bytes, owner: bytes, keep_s: float) -> None:
        """Keep the owner of a ticket."""
        self._owners[digest] = owner, self._clock() + keep_s

    async def take(self, digest: bytes) -> bytes | None:
        """Its owner, once."""
        owner, until = self._owners.pop(digest, (None, 0.0))
        return owner if until > self._clock() else None
