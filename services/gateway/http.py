"""HTTP: tasks, models, tickets, the WebSocket's door, the page. Errors have one shape everywhere (core/openai.py)."""

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.gateway.core import messages as m
from services.gateway.core.estimates import Place
from services.gateway.core.identity import Caller, Directory
from services.gateway.core.openai import error_body
from services.gateway.core.submission import MAX_TASK_BYTES, Name, SubmitFields, check, decoded, invalid
from services.gateway.doorkeeper import TICKET_S, Doorkeeper, origin_allowed
from services.gateway.incident import internal
from services.gateway.places import Places
from services.gateway.ports import Connection, MessageHandler, OpenSession, WebSocketLimits
from services.gateway.session import Session, SessionContext
from services.gateway.submitting import Accepted, Submitting
from services.gateway.tasks import Tasks, View

T = TypeVar("T")

PAGE = Path(__file__).parent / "page"
MAX_BODY = MAX_TASK_BYTES + 64 * 1024
ServeWebSocket = Callable[[web.Request, WebSocketLimits, OpenSession], Awaitable[web.StreamResponse]]

_decode_submit = msgspec.json.Decoder(SubmitFields).decode
_convert_name = functools.partial(msgspec.convert, type=Name)


class TaskState(msgspec.Struct, kw_only=True):
    """A task over HTTP: as accepted, or as it stands. The last fields are those of `done`."""

    task: str
    state: str
    key: str | None = None
    model: str | None = None
    position: int | None = None
    eta_s: float | None = None
    gen: str = ""
    offset: int = 0
    text: str = ""
    finish_reason: str | None = None
    usage: m.Usage | None = None
    timings: m.Timings | None = None
    cache: str | None = None
    error: m.TaskError | None = None


class Ticket(msgspec.Struct, kw_only=True):
    """A browser's single-use entry: `/v1/ws?ticket=`."""

    ticket: str
    expires_in_s: float


class HttpApi:
    """The handlers of the native API."""

    def __init__(
        self,
        *,
        directory: Callable[[], Directory],
        doorkeeper: Doorkeeper,
        submitting: Submitting,
        tasks: Tasks,
        places: Places,
        sessions: SessionContext,
        serve_websocket: ServeWebSocket,
        websocket_limits: WebSocketLimits,
    ) -> None:
        self._directory = directory
        self._doorkeeper = doorkeeper
        self._submitting = submitting
        self._tasks = tasks
        self._places = places
        self._sessions = sessions
        self._serve_websocket = serve_websocket
        self._websocket_limits = websocket_limits

    def routes(self) -> list[web.RouteDef]:
        """All routes of this module."""
        return [
            web.get("/v1/ws", self.websocket),
            web.post("/v1/tasks", self.submit),
            web.get("/v1/tasks/{task}", self.get),
            web.delete("/v1/tasks/{task}", self.cancel),
            web.get("/v1/models", self.models),
            web.get("/v1/models/{model}", self.model),
            web.post("/v1/tickets", self.ticket),
        ]

    def caller(self, request: web.Request) -> Caller:
        """Who asks. Raises ProblemError."""
        return unwrap(self._doorkeeper.authenticate(request.headers.get("Authorization", "")))

    # -- tasks ----------------------------------------------------------------------------------------------------------

    async def submit(self, request: web.Request) -> web.Response:
        """`POST /v1/tasks`."""
        caller = self.caller(request)
        fields = await body_of(request, _decode_submit)
        key = idempotency_key(request)
        if key and fields.key and key != fields.key:
            raise ProblemError(invalid("key", "differs from the header Idempotency-Key"))
        fields.key = fields.key or key
        result = await self._submitting.submit(caller, unwrap(check(fields)), None, traceparent(request))
        if not isinstance(result, Accepted):
            return problem_response(result.problem, result.limits.headers)
        state = TaskState(
            task=result.task,
            state=result.state,
            key=result.key,
            model=fields.model,
            position=result.place.position,
            eta_s=result.place.eta_s,
            cache=result.cache,
        )
        headers = {"Location": f"/v1/tasks/{result.task}", "x-millrace-task": result.task, **result.limits.headers}
        return json_response(state, status=202, headers=headers)

    async def get(self, request: web.Request) -> web.Response:
        """`GET /v1/tasks/{task}`."""
        view = unwrap(await self._tasks.view(self.caller(request), request.match_info["task"]))
        where = await self._places.of(view.task, view.pool) if view.state == "queued" else Place()
        return json_response(task_state(view, where))

    async def cancel(self, request: web.Request) -> web.Response:
        """`DELETE /v1/tasks/{task}`."""
        task = request.match_info["task"]
        state = unwrap(await self._tasks.cancel(self.caller(request), task))
        return json_response(TaskState(task=task, state=state), status=202)

    # -- models, tickets ------------------------------------------------------------------------------------------------

    async def models(self, request: web.Request) -> web.Response:
        """`GET /v1/models`."""
        caller = self.caller(request)
        return json_response({"object": "list", "data": [_model(n) for n in self._directory().models_of(caller)]})

    async def model(self, request: web.Request) -> web.Response:
        """`GET /v1/models/{model}`."""
        caller, name = self.caller(request), request.match_info["model"]
        if name not in self._directory().models_of(caller):
            raise ProblemError(Problem(ErrorCode.UNKNOWN_MODEL, f"no model {name!r}", "model"))
        return json_response(_model(name))

    async def ticket(self, request: web.Request) -> web.Response:
        """`POST /v1/tickets`."""
        self.knock(request)
        ticket = unwrap(await self._doorkeeper.give_ticket(self.caller(request)))
        return json_response(Ticket(ticket=ticket, expires_in_s=TICKET_S), status=201)

    # -- WebSocket ------------------------------------------------------------------------------------------------------

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/ws`: authenticate, upgrade, serve. Who may not come in is upgraded and closed with a code that says why."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise ProblemError(invalid("Upgrade", "this is a WebSocket"))
        self.knock(request)
        ticket = request.query.get("ticket", "")
        if ticket:
            caller = await self._doorkeeper.take_ticket(ticket)
        else:
            caller = self._doorkeeper.authenticate(request.headers.get("Authorization", ""))
        origin = request.headers.get("Origin", "")
        if isinstance(caller, Caller) and not origin_allowed(origin, request.host, caller):
            caller = Problem(ErrorCode.UNAUTHENTICATED, f"pages of {origin} may not use this key")
        open_session = functools.partial(_open_session, self._sessions, caller)
        return await self._serve_websocket(request, self._websocket_limits, open_session)

    def knock(self, request: web.Request) -> None:
        """Count a handshake. Raises ProblemError when the address has too many."""
        problem = self._doorkeeper.knock(request.remote or "")
        if problem is not None:
            raise ProblemError(problem)


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


# -- shared with the other HTTP modules -----------------------------------------------------------------------------------


def unwrap(result: T | Problem) -> T:
    """The result. Raises ProblemError if it is a problem, which the middleware answers."""
    if isinstance(result, Problem):
        raise ProblemError(result)
    return result


async def body_of(request: web.Request, decode: Callable[[bytes], T]) -> T:
    """The body. Raises ProblemError that names field and rule."""
    return unwrap(decoded(decode, await request.read()))


def idempotency_key(request: web.Request) -> str | None:
    """The header `Idempotency-Key`. Raises ProblemError for one that cannot be a key."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    try:
        return str(_convert_name(key.strip('"')))
    except msgspec.ValidationError as wrong:
        raise ProblemError(invalid("Idempotency-Key", str(wrong))) from None


def traceparent(request: web.Request) -> str:
    """W3C trace context as it came."""
    return request.headers.get("traceparent", "")[:64]


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=m.encode(value), status=status, headers=headers, content_type="application/json")


def problem_response(problem: Problem, headers: Mapping[str, str] = MappingProxyType({})) -> web.Response:
    """A refusal, with what clients need to act on it in headers."""
    answer = dict(headers)
    if problem.retry_after_s is not None:
        answer["Retry-After"] = str(max(math.ceil(problem.retry_after_s), 1))
        answer["retry-after-ms"] = str(math.ceil(problem.retry_after_s * 1000))  # read by OpenAI's clients
    if problem.code is ErrorCode.UNAUTHENTICATED:
        answer["WWW-Authenticate"] = "Bearer"
    answer["x-should-retry"] = "true" if problem.row.retryable else "false"  # as above
    return web.Response(
        body=error_body(problem), status=problem.row.http, headers=answer, content_type="application/json"
    )


def task_state(view: View, where: Place) -> TaskState:
    """A task as it stands."""
    state = TaskState(
        task=view.task,
        state=view.state,
        model=view.model,
        position=where.position,
        eta_s=where.eta_s,
        gen=view.gen,
        offset=view.offset,
        text=view.text,
    )
    if view.outcome is not None:
        end = m.done(view.task, view.gen, view.offset, view.outcome)
        state.finish_reason, state.usage, state.timings = end.finish_reason, end.usage, end.timings
        state.cache, state.error = end.cache, end.error
    return state


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "millrace"}


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every error in one shape."""
    try:
        return await handler(request)
    except ProblemError as refused:
        return problem_response(refused.problem)
    except web.HTTPRequestEntityTooLarge:
        return problem_response(Problem(ErrorCode.TOO_LARGE, f"the body has more than {MAX_BODY} bytes"))
    except web.HTTPException as plain:
        if plain.status < 400:
            raise
        response = problem_response(
            Problem(ErrorCode.INVALID_REQUEST, f"{request.method} {request.path}: {plain.reason}")
        )
        response.set_status(plain.status)
        return response
    except (asyncio.CancelledError, ConnectionResetError):
        raise  # the client is gone
    except Exception as bug:  # noqa: BLE001 - the client gets an id to quote
        return problem_response(internal(bug))


def page_routes() -> list[web.AbstractRouteDef]:
    """`/` and the files it is made of."""

    async def index(_: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    return [web.get("/", index), web.static("/page", PAGE)]
