"""Messages over one connection: each is its length in 4 bytes, big-endian, and its bytes."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

LENGTH: Final = 4
LONGEST: Final = 16 * 1024 * 1024  # bytes of one message; whoever sends more is cut off
UNREAD: Final = 64 * 1024 * 1024  # bytes a peer may leave unread; it is taken for dead then


class FramedConnection(asyncio.Protocol):
    """Calls `on_message` for each message and `on_lost` at the end."""

    def __init__(self, on_message: Callable[[bytes], None], on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def send(self, message: bytes) -> None:
        """Send one message; dropped when the connection is over."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(len(message).to_bytes(LENGTH, "big") + message)
        if self._transport.get_write_buffer_size() > UNREAD:
            self._transport.abort()

    def close(self) -> None:
        """Let the kernel have what waits, then end."""
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        """End at once."""
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        received = self._received + data if self._received else data
        at = 0
        while len(received) - at >= LENGTH:
            size = int.from_bytes(received[at : at + LENGTH], "big")
            if size > LONGEST:
                self.abort()
                return
            if len(received) - at < LENGTH + size:
                break
            self._on_message(received[at + LENGTH : at + LENGTH + size])
            at += LENGTH + size
        self._received = received[at:]

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the loop."""
        self._transport = None
        self._on_lost()
