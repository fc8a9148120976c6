"""The answering end of framed connections (`framing`).

async with framed_server(host, port, {method(frames_pb2, "Frames", "Push"): FramesCaller}) as server:
...
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from google.protobuf.message import DecodeError

from services.chassis.framing import FramedConnection

log = logging.getLogger(__name__)


class Caller(Protocol):
    """What a server keeps for one connection. It sends b"" first when it listens, else its reason (`refuse`)."""

    def take(self, message: bytes) -> None:
        """The caller's next message. DecodeError: it is none, the caller is cut off."""
        ...

    def lost(self) -> None:
        """The connection is over."""
        ...

    async def leave(self) -> None:
        """The server stops: say what is owed."""
        ...


Called: TypeAlias = Callable[[FramedConnection], Caller]


def refuse(connection: FramedConnection, reason: str) -> None:
    """Instead of listening: say why, and hang up."""
    connection.send(reason.encode())
    connection.close()


@dataclass(frozen=True, slots=True)
class FramedServer:
    """A running server."""

    port: int


class _Accepted:
    """A connection, from its first message on in the hands of whoever serves the method."""

    def __init__(self, methods: Mapping[str, Called], gone: Callable[["_Accepted"], None]) -> None:
        self._methods = methods
        self._gone = gone
        self.caller: Caller | None = None
        self.connection = FramedConnection(self._take, self._on_lost)

    def _take(self, message: bytes) -> None:
        if self.caller:
            try:
                self.caller.take(message)
            except DecodeError:
                log.warning("a caller sends what is no message and is cut off")
                self.connection.abort()
            return
        name = message.decode(errors="replace")
        if called := self._methods.get(name):
            self.caller = called(self.connection)
        else:
            log.warning("a caller wants %r, which is not served here", name[:100])
            refuse(self.connection, f"{name[:100]!r} is not served here")

    def _on_lost(self) -> None:
        if self.caller:
            self.caller.lost()
        self._gone(self)


@asynccontextmanager
async def framed_server(
    host: str, port: int, methods: Mapping[str, Called], *, grace_s: float = 2.0
) -> AsyncIterator[FramedServer]:
    """Serve `methods`, by full name, until the context ends; callers have `grace_s` to say what is owed.

    Raises OSError when the port is taken. Port 0 takes a free one.
    """
    accepted: set[_Accepted] = set()

    def accept() -> FramedConnection:
        one = _Accepted(methods, accepted.discard)
        accepted.add(one)
        return one.connection

    listener = await asyncio.get_running_loop().create_server(accept, host, port)
    try:
        yield FramedServer(listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        if owed := [asyncio.ensure_future(one.caller.leave()) for one in accepted if one.caller]:
            _, late = await asyncio.wait(owed, timeout=grace_s)
            for leaving in late:
                leaving.cancel()
        await asyncio.sleep(0)  # answers of this turn are on their way
        for one in tuple(accepted):
            one.connection.close()
        await listener.wait_closed()
