"""The HTTP port: shared by several processes, closed to those who connect and say nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from services.gateway.doorkeeper import AUTHENTICATE_S

BACKLOG = 4096


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
        return server is not None and any(_answers(connection) for connection in server.connections)


@asynccontextmanager
async def http_server(app: web.Application, host: str, port: int) -> AsyncIterator[HttpServer]:
    """Serve until the context ends. Port 0 takes a free one. Raises OSError when the port is taken by something else.

    A handler is cancelled when its client is gone.
    """
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    loop = asyncio.get_running_loop()

    def connection() -> RequestHandler:
        assert runner.server is not None
        handler: RequestHandler = runner.server()
        loop.call_later(AUTHENTICATE_S, _close_if_silent, handler)
        return handler

    server = await loop.create_server(connection, host, port, backlog=BACKLOG, reuse_port=True)
    try:
        yield HttpServer(server.sockets[0].getsockname()[1], server, runner)
    finally:
        server.close()
        await runner.cleanup()


def _close_if_silent(handler: RequestHandler) -> None:
    """A client has 5 s for its first request; aiohttp itself would wait for ever."""
    if handler.transport is not None and not _answers(handler) and not handler._keepalive:  # noqa: SLF001
        handler.force_close()


def _answers(handler: RequestHandler) -> bool:
    return handler._current_request is not None  # noqa: SLF001 - the minor version is pinned
