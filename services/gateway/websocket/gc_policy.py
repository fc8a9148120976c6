"""When Python's cycle collector may look at the connections: never on its own account.

A full pass over 18,000 connections of aiohttp's own WebSocket takes half a second, of the slim protocol 12 ms, and it
comes when connections pile up, which is when nobody can wait. So what lives as long as a connection is frozen out of its
sight (`gc.freeze`) a thousand connections at a time, and what dies is left to reference counts: a connection is no part of
a cycle once it is closed. Each freeze follows a collection of everything, also of what was frozen before: handshakes that
were under way then are garbage by now, 20 KB each, and would stay for ever (measured: 0.8 KB per connection more).
"""

from services.chassis import collector


class GcPolicy:
    """Call `accepted` for each connection."""

    def __init__(self, every: int = 1000) -> None:
        self._every = every
        self._since = 0

    def accepted(self) -> None:
        """Count a connection; the last of each batch freezes the batch."""
        self._since += 1
        if self._since >= self._every:
            self._since = 0
            collector.freeze()
