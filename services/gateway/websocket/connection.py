"""How a client connection meets the session that serves it.

A WebSocket connection knows framing, control frames, back-pressure and nothing about tasks; the session knows tasks and
nothing about sockets. `Connection` is implemented twice, by the slim protocol and by aiohttp's WebSocket, `Session` is
the one implementation of `MessageHandler`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from aiohttp import web


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """What a connection enforces by itself. Sizes in bytes, times in seconds.

    A message above `max_frame_bytes` (its fragments together) closes with 1009. Above `high_water` buffered bytes the
    connection is not writable until it drained below `low_water`. After `heartbeat_s` without a byte to the client the
    connection sends a ping; a client that sends nothing, no pong either, for two heartbeats is closed.
    """

    max_frame_bytes: int = 256 * 1024
    high_water: int = 64 * 1024
    low_water: int = 16 * 1024
    heartbeat_s: float = 20.0
    close_s: float = 5.0


class Connection(Protocol):
    """One client connection that carries text messages. Every method is called on the event loop and never waits."""

    @property
    def writable(self) -> bool:
        """False from the moment `buffered` passed the high-water mark until `on_writable` is called, and once closed."""
        ...

    @property
    def buffered(self) -> int:
        """Bytes given to `send` that the kernel has not taken yet."""
        ...

    def send(self, message: bytes) -> None:
        """Send one text message, UTF-8. Always accepted, whatever is buffered; ignored once closed."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Send what is buffered, then the close frame (the reason is cut to 123 bytes). `on_closed` follows."""
        ...


class MessageHandler(Protocol):
    """Who a connection talks to. The connection calls these on the event loop, one at a time; none of them waits."""

    def on_message(self, message: bytes) -> None:
        """One whole text message, valid UTF-8. (Binary messages close the connection with 1003 by themselves.)"""
        ...

    def on_writable(self) -> None:
        """The buffer drained below the low-water mark after `writable` had been False."""
        ...

    def on_closed(self) -> None:
        """The connection is over, for whatever reason. Called exactly once, the last call; breaks the reference both ways."""
        ...


OpenSession: TypeAlias = Callable[[Connection], MessageHandler]
"""Called once the upgrade is done: sends `hello` (or closes with 4401) and returns who takes the messages."""

ServeWebSocket: TypeAlias = Callable[[web.Request, WebSocketLimits, OpenSession], Awaitable[web.StreamResponse]]
"""`SlimServer.serve` or `serve_aiohttp`. The caller has authenticated, checked origin and handshake limits, and accepted the upgrade."""
