"""Messages over one connection: each is its length in 4 bytes, big-endian, and its bytes.

How a conversation begins: the caller's first message names a method of the protos (`method`), the server's first message
is empty when it listens, else it says why it does not and the connection ends. From then on both send the protobuf messages
of that method. The hops between services speak this and not gRPC because a message by grpc.aio costs each side some 400 us
and four hand-overs between threads more (DECISIONS.md); `framed_client` and `framed_server` are the two ends.
"""

import asyncio
import socket
from collections.abc import Callable
from types import ModuleType
from typing import Final, cast

LENGTH: Final = 4
LONGEST: Final = 16 * 1024 * 1024  # bytes of one message; whoever sends more is cut off
UNREAD: Final = 64 * 1024 * 1024  # bytes a peer may leave unread; it is taken for dead then
IDLE_S: Final = 10  # afterwards an idle connection is tried
LOST_S: Final = 10  # a peer that takes nothing for so long is gone or stands still


def method(protos: ModuleType, service: str, name: str) -> str:
    """The full name of a method that a proto file declares. Raises KeyError if it does not.

    >>> from millrace.router.v1 import router_pb2
    >>> method(router_pb2, "Router", "Accept")
    'millrace.router.v1.Router.Accept'
    """
    full_name: str = protos.DESCRIPTOR.services_by_name[service].methods_by_name[name].full_name
    return full_name


class FramedConnection(asyncio.Protocol):
    """Calls `on_message` for each message and `on_lost` at the end."""

    def __init__(self, on_message: Callable[[bytes], None], on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._received = b""

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    def send(self, message: bytes) -> None:
        """Send one message; dropped when the connection is over."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(len(message).to_bytes(LENGTH, "big") + message)
        if self._transport.get_write_buffer_size() > UNREAD:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more for now: the peer's sends wait."""
        if self._transport and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport and not self._transport.is_reading() and not self._transport.is_closing():
            self._transport.resume_reading()

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
        _notice_loss(transport.get_extra_info("socket"))

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


def _notice_loss(connected: socket.socket) -> None:
    """Have the kernel end the connection when the peer's host vanished, or its process takes nothing any more."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", IDLE_S),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", LOST_S * 1000),
    ):
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
