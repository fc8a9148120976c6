"""WebSocket connections that cost little: aiohttp does the HTTP, then its transport changes hands.

After the upgrade the transport goes to a protocol of a few slots, and everything aiohttp keeps per connection is dropped;
1,000 idle connections are about 1.5 MB instead of 14, and the cycle collector has a twentieth of the objects to visit.
The hand-over uses three names of aiohttp that are not public (`_message_tail`; `transport` set to None before
`connection_lost`, or aiohttp would write HTTP into the WebSocket), so `pyproject.toml` pins its minor version and
`tests/contract/test_connection.py` holds the behaviour to that of aiohttp's own WebSocket.
"""

import asyncio
import base64
import binascii
import hashlib
import random
import socket
from collections.abc import Callable
from typing import Final, Self

from aiohttp import hdrs, web
from aiohttp._websocket.helpers import websocket_mask
from aiohttp.abc import AbstractStreamWriter

from services.gateway.core.messages import PROTOCOL
from services.gateway.core.timer_wheel import TimerWheel
from services.gateway.core.ws_frames import PING, PONG, CloseCode, Failed, encode_frame, encode_text
from services.gateway.core.ws_protocol import Binary, Close, Ping, ServerProtocol, Text
from services.gateway.websocket.connection import MessageHandler, OpenSession, WebSocketLimits

_TICK_S: Final = 0.25
_BEATS: Final = 2  # looks at a connection per heartbeat
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16
_PING: Final = encode_frame(PING, b"")


class SlimConnection(asyncio.Protocol):
    """A `Connection`: RFC 6455 by the sans-I/O core, writes of one loop iteration joined into one, no task of its own."""

    __slots__ = (
        "_closing",
        "_handler",
        "_limits",
        "_pending",
        "_pending_size",
        "_protocol",
        "_quiet",
        "_server",
        "_silent",
        "_tick",
        "_transport",
        "writable",
    )

    def __init__(self, server: "SlimServer", transport: asyncio.Transport, limits: WebSocketLimits) -> None:
        self._server = server
        self._transport = transport
        self._limits = limits
        self._protocol = ServerProtocol(limits.max_frame_bytes, websocket_mask)
        self._handler: MessageHandler | None = None
        self._pending: list[bytes] | None = None  # an empty list in each of 10,000 idle connections is half a megabyte
        self._pending_size = 0
        self._closing = False
        self._quiet = self._silent = 0  # beats since the last byte to, and from, the client
        self._tick = server.schedule(self, limits.heartbeat_s / _BEATS * (1 - random.random()))  # noqa: S311 - spread
        self.writable = True

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not taken."""
        return self._pending_size + self._transport.get_write_buffer_size()

    def open(self, open_session: OpenSession, tail: bytes) -> None:
        """Meet the session, then read what came behind the upgrade request."""
        self._handler = open_session(self)
        if tail:
            self.data_received(tail)

    def send(self, message: bytes) -> None:
        """Send one text message at the end of this loop iteration, with whatever else is sent in it."""
        if not self._closing:
            self._write(encode_text(message))

    def close(self, code: int, reason: str = "") -> None:
        """Send what is buffered, then the close frame; the peer has `close_s` to answer it."""
        if not self._closing:
            self._write(self._protocol.close(code, reason))
            self._end()

    def abort(self) -> None:
        """Drop the connection with what is buffered."""
        self._transport.abort()

    def beat(self) -> None:
        """The timer's turn: end a closing that takes too long or a silent connection, ping a quiet one.

        Each beat but the first closes a full interval, so a connection is quiet for at most one heartbeat before its ping
        and silent for at least two before it is dropped.
        """
        self._quiet += 1
        self._silent += 1
        if self._closing or self._silent > 2 * _BEATS:
            self.abort()
            return
        if self._quiet >= _BEATS or self._silent == _BEATS:
            self._write(_PING)
        self._tick = self._server.schedule(self, self._limits.heartbeat_s / _BEATS)

    def flush(self) -> None:
        """Hand what this loop iteration sent to the transport, in one write."""
        pending, self._pending, self._pending_size = self._pending, None, 0
        if pending and not self._transport.is_closing():
            self._transport.write(pending[0] if len(pending) == 1 else b"".join(pending))

    # -- called by the transport ----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read frames; whatever comes is a sign of life."""
        self._silent = 0
        for event in self._protocol.feed(data):
            if isinstance(event, Text):
                if not self._closing and self._handler is not None:
                    self._handler.on_message(event.payload)
            elif isinstance(event, Ping):
                if not self._closing:
                    self._write(encode_frame(PONG, event.payload))
            elif isinstance(event, Close):
                self._write(self._protocol.close(event.code))
                self._end()
                self.flush()
                self._transport.close()
            elif isinstance(event, Failed):
                self._write(self._protocol.close(event.code, event.reason))
                self._end()
                self.flush()
                self._transport.write_eof()  # the close frame survives: what the peer still sends is read and dropped
            elif isinstance(event, Binary):
                self.close(CloseCode.UNSUPPORTED_DATA, "text messages only")

    def pause_writing(self) -> None:
        """The transport holds more than the high-water mark."""
        self.writable = False

    def resume_writing(self) -> None:
        """The transport drained below the low-water mark."""
        if not self._closing and self._handler is not None:
            self.writable = True
            self._handler.on_writable()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The end, however it came. No reference stays that could keep a closed connection alive."""
        self._closing, self.writable = True, False
        self._pending, self._pending_size = None, 0
        self._server.forget(self, self._tick)
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.on_closed()

    # -------------------------------------------------------------------------------------------------------------------

    def _write(self, frame: bytes) -> None:
        if not frame:
            return
        self._quiet = 0
        if self._pending is None:
            self._pending = [frame]
            self._server.flush_soon(self)
        else:
            self._pending.append(frame)
        self._pending_size += len(frame)
        if self._pending_size > self._limits.low_water:
            self.flush()  # let the transport say at once when it is too much

    def _end(self) -> None:
        self._closing, self.writable = True, False
        self._tick = self._server.reschedule(self, self._tick, self._limits.close_s)


class SlimServer:
    """What all slim connections of a process share: the set of them, one timer, one flush per loop iteration.

    An asynchronous context manager; `serve` is the handler's work and has the signature of `serve_aiohttp`. Leaving the
    context closes the connections that are left, which aiohttp's runner knows nothing about. `accepted` is called for each
    connection that was taken over.
    """

    def __init__(self, accepted: Callable[[], None] = lambda: None) -> None:
        self._accepted = accepted
        self.connections: set[SlimConnection] = set()
        self._dirty: list[SlimConnection] = []
        self._empty = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._wheel = TimerWheel[SlimConnection](_TICK_S, self._loop.time())
        self._timer = self._loop.call_later(_TICK_S, self._turn)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for connection in list(self.connections):
            connection.close(CloseCode.SERVICE_RESTART, "the gateway stops")
        while self.connections:  # the timer aborts those that do not answer within their `close_s`
            self._empty.clear()
            await self._empty.wait()
        self._timer.cancel()

    async def serve(
        self, request: web.Request, limits: WebSocketLimits, open_session: OpenSession
    ) -> web.StreamResponse:
        """Upgrade and take the transport over; returns at once, the connection lives on.

        Raises HTTPBadRequest or HTTPUpgradeRequired when the request is no WebSocket upgrade of version 13.
        """
        answer = _upgrade(request)
        transport, http = request.transport, request.protocol
        if transport is None:
            raise ConnectionResetError("the client left before the upgrade")
        transport.set_write_buffer_limits(limits.high_water, limits.low_water)
        _user_timeout(transport, limits.heartbeat_s * 2)
        transport.write(answer)
        connection = SlimConnection(self, transport, limits)
        self.connections.add(connection)
        tail = bytes(http._message_tail)  # noqa: SLF001 - the hand-over, see the module's docstring
        transport.set_protocol(connection)
        http.transport = None
        http.connection_lost(None)
        if not transport.is_reading():
            transport.resume_reading()
        self._accepted()
        try:
            connection.open(open_session, tail)
        except BaseException:
            connection.abort()
            raise
        return _Upgraded(status=101)

    # -- for the connections --------------------------------------------------------------------------------------------

    def schedule(self, connection: SlimConnection, delay: float) -> int:
        """Let the connection `beat` after `delay` seconds."""
        return self._wheel.schedule(connection, self._loop.time() + delay)

    def reschedule(self, connection: SlimConnection, tick: int, delay: float) -> int:
        """The same, in place of what was scheduled before."""
        self._wheel.cancel(connection, tick)
        return self.schedule(connection, delay)

    def flush_soon(self, connection: SlimConnection) -> None:
        """Let the connection `flush` when this loop iteration is over."""
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty.append(connection)

    def forget(self, connection: SlimConnection, tick: int) -> None:
        """The connection is over."""
        self._wheel.cancel(connection, tick)
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()

    def _turn(self) -> None:
        self._timer = self._loop.call_later(_TICK_S, self._turn)
        for connection in self._wheel.advance(self._loop.time()):
            connection.beat()


class _Upgraded(web.StreamResponse):
    """What aiohttp gets for a connection that is not its own any more: a response that writes nothing."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return


def _upgrade(request: web.Request) -> bytes:
    """The answer to an upgrade request (RFC 6455 section 4.2); raises the HTTP error it deserves otherwise."""
    headers = request.headers
    if headers.get(hdrs.UPGRADE, "").lower() != "websocket" or "upgrade" not in _tokens(headers.get(hdrs.CONNECTION)):
        raise web.HTTPBadRequest(text="expected a WebSocket upgrade")
    if headers.get(hdrs.SEC_WEBSOCKET_VERSION) != "13":
        raise web.HTTPUpgradeRequired(text="WebSocket version 13 only", headers={hdrs.SEC_WEBSOCKET_VERSION: "13"})
    key = headers.get(hdrs.SEC_WEBSOCKET_KEY, "").encode()
    try:
        whole = len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except binascii.Error:
        whole = False
    if not whole:
        raise web.HTTPBadRequest(text="Sec-WebSocket-Key is not 16 bytes in base64")
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324 - RFC 6455 section 1.3 says SHA-1
    agreed = PROTOCOL.lower() in _tokens(headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL))
    return b"".join(
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
            accept,
            b"\r\nSec-WebSocket-Protocol: " + PROTOCOL.encode() if agreed else b"",
            b"\r\n\r\n",
        )
    )


def _tokens(value: str | None) -> list[str]:
    return [token.strip().lower() for token in (value or "").split(",")]


def _user_timeout(transport: asyncio.Transport, seconds: float) -> None:
    """Let the kernel give up on a peer that acknowledges nothing, instead of after its own quarter of an hour."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
    connected = transport.get_extra_info("socket")
    if option is not None and connected is not None and connected.family in {socket.AF_INET, socket.AF_INET6}:
        connected.setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))
