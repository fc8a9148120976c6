"""`GET /v1/ws`: authenticate, upgrade, serve."""

import functools

from aiohttp import web

from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.gateway.admission.doorkeeper import Doorkeeper, origin_allowed
from services.gateway.core.identity import Caller
from services.gateway.core.submission import invalid
from services.gateway.http.requests import knock
from services.gateway.websocket.connection import Connection, MessageHandler, ServeWebSocket, WebSocketLimits
from services.gateway.websocket.session import Session, SessionContext


class WebSocketDoor:
    """Lets callers in: each gets a session."""

    def __init__(
        self, doorkeeper: Doorkeeper, sessions: SessionContext, serve: ServeWebSocket, limits: WebSocketLimits
    ) -> None:
        self._doorkeeper = doorkeeper
        self._sessions = sessions
        self._serve = serve
        self._limits = limits

    def routes(self) -> list[web.RouteDef]:
        """The one route."""
        return [web.get("/v1/ws", self.enter)]

    async def enter(self, request: web.Request) -> web.StreamResponse:
        """Who may not come in is upgraded and closed with a code that says why: browsers show nothing of a refused upgrade."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise ProblemError(invalid("Upgrade", "this is a WebSocket"))
        knock(request, self._doorkeeper)
        ticket = request.query.get("ticket", "")
        if ticket:
            caller = await self._doorkeeper.take_ticket(ticket)
        else:
            caller = self._doorkeeper.authenticate(request.headers.get("Authorization", ""))
        origin = request.headers.get("Origin", "")
        if isinstance(caller, Caller) and not origin_allowed(origin, request.host, caller):
            caller = Problem(ErrorCode.UNAUTHENTICATED, f"pages of {origin} may not use this key")
        open_session = functools.partial(_open_session, self._sessions, caller)
        return await self._serve(request, self._limits, open_session)


def _open_session(context: SessionContext, caller: Caller | Problem, connection: Connection) -> MessageHandler:
    if isinstance(caller, Problem):
        connection.close(caller.row.close or 1013, caller.message)
        return _Nobody()
    return Session(context, caller, connection)


class _Nobody:
    """The handler of a connection that is being closed."""

    __slots__ = ()

    def on_message(self, message: bytes) -> None:
        """Nobody listens."""

    def on_writable(self) -> None:
        """Nothing waits."""

    def on_closed(self) -> None:
        """Nothing is left."""
