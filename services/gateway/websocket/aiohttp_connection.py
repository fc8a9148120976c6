"""WebSocket by aiohttp's own `WebSocketResponse`: the fallback beside the slim protocol, behind `websocket=aiohttp`."""

import asyncio
import contextlib
from collections import deque

from aiohttp import WSMsgType, web

from services.gateway.core.messages import PROTOCOL
from services.gateway.websocket.connection import MessageHandler, OpenSession, WebSocketLimits


class AiohttpConnection:
    """A `Connection` on a prepared WebSocketResponse: `send` queues, one task writes."""

    __slots__ = ("_closing", "_limits", "_queue", "_queued", "_socket", "_transport", "_wake", "writable")

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport, limits: WebSocketLimits) -> None:
        self._socket = socket
        self._transport = transport
        self._limits = limits
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._closing: tuple[int, bytes] | None = None
        self._wake = asyncio.Event()
        self.writable = True

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not taken."""
        return self._queued + self._transport.get_write_buffer_size()

    def send(self, message: bytes) -> None:
        """Queue one text message."""
        if self._closing is None:
            self._queue.append(message)
            self._queued += len(message)
            self._wake.set()
            if self.buffered > self._limits.high_water:
                self.writable = False

    def close(self, code: int, reason: str = "") -> None:
        """Close after what is queued."""
        if self._closing is None:
            self._closing = code, reason.encode()[:123]
            self.writable = False
            self._wake.set()

    async def write(self, handler: MessageHandler) -> None:
        """Write what is queued until closed. aiohttp's `send_frame` waits while the transport is full."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                message = self._queue.popleft()
                await self._socket.send_frame(message, WSMsgType.TEXT)
                self._queued -= len(message)
            if self._closing is not None:
                code, reason = self._closing
                await self._socket.close(code=code, message=reason)
                return
            while not self.writable and not self._wake.is_set():
                if self.buffered < self._limits.low_water:
                    self.writable = True
                    handler.on_writable()
                else:
                    await asyncio.sleep(0.02)  # aiohttp does not tell when its transport drained


async def serve_aiohttp(request: web.Request, limits: WebSocketLimits, open_session: OpenSession) -> web.StreamResponse:
    """Upgrade, then serve the connection to its end. The slim protocol has a function of the same signature."""
    socket = web.WebSocketResponse(
        protocols=(PROTOCOL,),
        heartbeat=limits.heartbeat_s,
        compress=False,
        max_msg_size=limits.max_frame_bytes,
        writer_limit=limits.low_water,
        timeout=limits.close_s,
    )
    await socket.prepare(request)
    assert request.transport is not None
    connection = AiohttpConnection(socket, request.transport, limits)
    handler = open_session(connection)
    writer = asyncio.create_task(connection.write(handler), name="websocket writer")
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                handler.on_message(message.data.encode())
            elif message.type is WSMsgType.BINARY:
                connection.close(1003, "text messages only")
    finally:
        handler.on_closed()
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await writer
    return socket
