"""The native routes: tasks, models, tickets."""

from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from services.chassis.errors import ErrorCode, Problem, ProblemError, unwrap
from services.gateway.admission.doorkeeper import TICKET_S, Doorkeeper
from services.gateway.admission.submitting import Accepted, Submitting
from services.gateway.core import messages as m
from services.gateway.core.estimates import Place
from services.gateway.core.identity import Directory
from services.gateway.core.submission import SubmitFields, check, invalid
from services.gateway.http.requests import body_of, caller_of, idempotency_key, knock, traceparent
from services.gateway.http.responses import json_response, problem_response
from services.gateway.reading.places import Places
from services.gateway.reading.tasks import Tasks, View

_decode_submit = msgspec.json.Decoder(SubmitFields).decode


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


class NativeApi:
    """The handlers of these routes."""

    def __init__(
        self,
        *,
        directory: Callable[[], Directory],
        doorkeeper: Doorkeeper,
        submitting: Submitting,
        tasks: Tasks,
        places: Places,
    ) -> None:
        self._directory = directory
        self._doorkeeper = doorkeeper
        self._submitting = submitting
        self._tasks = tasks
        self._places = places

    def routes(self) -> list[web.RouteDef]:
        """All routes of this module."""
        return [
            web.post("/v1/tasks", self.submit),
            web.get("/v1/tasks/{task}", self.get),
            web.delete("/v1/tasks/{task}", self.cancel),
            web.get("/v1/models", self.models),
            web.get("/v1/models/{model}", self.model),
            web.post("/v1/tickets", self.ticket),
        ]

    # -- tasks ----------------------------------------------------------------------------------------------------------

    async def submit(self, request: web.Request) -> web.Response:
        """`POST /v1/tasks`."""
        caller = caller_of(request, self._doorkeeper)
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
        view = unwrap(await self._tasks.view(caller_of(request, self._doorkeeper), request.match_info["task"]))
        where = await self._places.of(view)
        return json_response(task_state(view, where))

    async def cancel(self, request: web.Request) -> web.Response:
        """`DELETE /v1/tasks/{task}`."""
        task = request.match_info["task"]
        state = unwrap(await self._tasks.cancel(caller_of(request, self._doorkeeper), task))
        return json_response(TaskState(task=task, state=state), status=202)

    # -- models, tickets ------------------------------------------------------------------------------------------------

    async def models(self, request: web.Request) -> web.Response:
        """`GET /v1/models`."""
        caller = caller_of(request, self._doorkeeper)
        return json_response({"object": "list", "data": [_model(n) for n in self._directory().models_of(caller)]})

    async def model(self, request: web.Request) -> web.Response:
        """`GET /v1/models/{model}`."""
        caller, name = caller_of(request, self._doorkeeper), request.match_info["model"]
        if name not in self._directory().models_of(caller):
            raise ProblemError(Problem(ErrorCode.UNKNOWN_MODEL, f"no model {name!r}", "model"))
        return json_response(_model(name))

    async def ticket(self, request: web.Request) -> web.Response:
        """`POST /v1/tickets`."""
        knock(request, self._doorkeeper)
        ticket = unwrap(await self._doorkeeper.give_ticket(caller_of(request, self._doorkeeper)))
        return json_response(Ticket(ticket=ticket, expires_in_s=TICKET_S), status=201)


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
