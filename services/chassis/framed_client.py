"""The calling end of a framed connection (`framing`)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from services.chassis.framing import FramedConnection

CONNECT_S: Final = 5.0


class RefusedError(ConnectionError):
    """The server is there but does not listen; the message is its reason."""


class Line:
    """A connection to a server. `lost` is set when it is over."""

    def __init__(self, on_message: Callable[[bytes], None], open_by: float) -> None:
        self._on_message = on_message
        self._open_by = open_by
        self._loop = asyncio.get_running_loop()
        self._heard_at = 0.0
        self._opened: asyncio.Future[bytes] = self._loop.create_future()
        self.lost = asyncio.Event()
        self.connection = FramedConnection(self._take, self._on_lost)
        self.send = self.connection.send

    async def listening(self) -> None:
        """Wait until the server says that it listens. Raises RefusedError with its reason, OSError, TimeoutError."""
        async with asyncio.timeout_at(self._open_by):
            if refusal := await self._opened:
                raise RefusedError(refusal.decode(errors="replace"))

    async def over(self, silence_s: float) -> None:
        """Return when the connection is over. Raises TimeoutError when the server says nothing for `silence_s`."""
        while not self.lost.is_set():
            silent_at = self._heard_at + silence_s
            if silent_at <= self._loop.time():
                raise TimeoutError(f"nothing was heard for {silence_s} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(silent_at):
                    await self.lost.wait()

    def _take(self, message: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._opened.done():
            self._on_message(message)
        else:
            self._opened.set_result(message)

    def _on_lost(self) -> None:
        if not self._opened.done():
            self._opened.set_result(b"the server hung up")
        self.lost.set()


@asynccontextmanager
async def dial(
    address: str, method: str, on_message: Callable[[bytes], None], *, within_s: float = CONNECT_S
) -> AsyncIterator[Line]:
    """Connect to `host:port` and name the method; within `within_s` the server listens, or `listening` raises.

    Raises OSError, TimeoutError.
    """
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    line = Line(on_message, loop.time() + within_s)
    try:
        async with asyncio.timeout(within_s):
            await loop.create_connection(lambda: line.connection, host, int(port))
        line.send(method.encode())
        yield line
    finally:
        line.connection.abort()
