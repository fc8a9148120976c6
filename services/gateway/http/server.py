"""The HTTP port: shared by several processes, closed to those who connect and say nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from services.gateway.admission.doorkeeper import AUTHENTICATE_S

BACKLOG = 4096
SWEEP_S = 0.25
KEEP_ALIVE_S = 75.0  # for the next request of a connection; longer than load balancers keep theirs


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A listening server."""

    port: int
    _server: asyncio.Server
    _runner: web.AppRunner

    def stop_accepting(self) -> None:
        """Take no new connection; open ones go on."""
        self._server.close()

    @property
    def busy(self) -> bool:
        """Is any request being answered?"""
        server = self._runner.server
        return server is not None and any(
            connection._current_request is not None  # noqa: SLF001 - the minor version is pinned
            for connection in server.connections
        )


@asynccontextmanager
async def http_server(app: web.Application, host: str, port: int) -> AsyncIterator[HttpServer]:
    """Serve until the context ends. Port 0 takes a free one. Raises OSError when the port is taken by something else.

    A handler is cancelled when its client is gone. A client has 5 s for its first request.
    """
    loop = asyncio.get_running_loop()
    # Until when each connection must have said something, the oldest first. One timer for all: one for each would keep what
    # aiohttp holds for a handshake, some 5 KB, for seconds after the connection has become a WebSocket.
    silent: dict[RequestHandler, float] = {}

    @web.middleware
    async def heard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        silent.pop(request.protocol, None)
        return await handler(request)

    async def close_silent() -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            while silent:
                connection, due = next(iter(silent.items()))
                if due > loop.time():
                    break
                del silent[connection]
                connection.force_close()

    def connect() -> RequestHandler:
        assert runner.server is not None
        connection = runner.server()
        silent[connection] = loop.time() + AUTHENTICATE_S
        return connection

    app.middlewares.insert(0, heard)
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0, keepalive_timeout=KEEP_ALIVE_S
    )
    await runner.setup()
    sweep = asyncio.create_task(close_silent(), name="close silent connections")
    server = await loop.create_server(connect, host, port, backlog=BACKLOG, reuse_port=True)
    try:
        yield HttpServer(server.sockets[0].getsockname()[1], server, runner)
    finally:
        sweep.cancel()
        server.close()
        await runner.cleanup()
