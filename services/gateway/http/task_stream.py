"""`GET /v1/tasks/{task}/stream`: the WebSocket's objects as server-sent events, resumable by `Last-Event-ID`."""

from aiohttp import web

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from services.chassis.errors import Problem, unwrap
from services.gateway.admission.doorkeeper import Doorkeeper
from services.gateway.core import messages as m
from services.gateway.core import sse
from services.gateway.core.submission import invalid
from services.gateway.http.requests import caller_of
from services.gateway.reading.mailbox import Delta, Done, Event, Gone, Leaving, Mailboxes, Restarted
from services.gateway.reading.tasks import Tasks
from services.tasklog.core.ids import gen_text

RECONNECT_S = 1.0
HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class TaskStream:
    """The handler of task streams."""

    def __init__(self, doorkeeper: Doorkeeper, tasks: Tasks, mailboxes: Mailboxes, *, heartbeat_s: float) -> None:
        self._doorkeeper = doorkeeper
        self._tasks = tasks
        self._mailboxes = mailboxes
        self._heartbeat_s = heartbeat_s

    def routes(self) -> list[web.RouteDef]:
        """The one route."""
        return [web.get("/v1/tasks/{task}/stream", self.stream)]

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """From the cursor to the end; a client that comes back sends the last `id` it saw."""
        caller, task = caller_of(request, self._doorkeeper), request.match_info["task"]
        gen, offset = unwrap(cursor_of(request))
        mailbox = self._mailboxes.open(resumable=True)
        reader = unwrap(await self._tasks.resume(caller, task, gen, offset, mailbox))  # 404, 410 before the stream
        try:
            response = web.StreamResponse(headers=HEADERS | {"x-millrace-task": task})
            await response.prepare(request)
            while True:
                event = await mailbox.take(self._heartbeat_s)
                await response.write(sse.KEEP_ALIVE if event is None else encoded(task, event))
                if isinstance(event, Done | Gone | Leaving):
                    return response
        finally:
            self._tasks.leave(reader)


def cursor_of(request: web.Request) -> tuple[str, int] | Problem:
    """Where to read on: the header `Last-Event-ID`, or the query's `gen` and `offset`."""
    last = request.headers.get("Last-Event-ID")
    if last is not None:
        return sse.parse_cursor(last)
    offset = request.query.get("offset", "0")
    if not (offset.isascii() and offset.isdigit()) or len(offset) > 15:
        return invalid("offset", "must be a number of bytes")
    return request.query.get("gen", ""), int(offset)


def encoded(task: str, event: Event) -> bytes:
    """One event of the stream."""
    match event:
        case Delta(gen, offset, text):
            name = gen_text(gen)
            return sse.event("delta", m.delta(m.delta_prefix(task, name), offset, text), f"{name}:{offset}")
        case Restarted(gen):
            name = gen_text(gen)
            return sse.event("restarted", m.encode(m.Restarted(task=task, gen=name)), f"{name}:0")
        case Done(gen, offset, outcome):
            name = gen_text(gen)
            return sse.event("done", m.encode(m.done(task, name, offset, outcome)), f"{name}:{offset}")
        case Gone(code):
            return sse.event("gone", m.encode(m.Gone(task=task, code=code)))
        case Leaving():
            return sse.event("going_away", m.encode(m.GoingAway(reconnect_in_s=RECONNECT_S)))
        case TaskStatus():
            return sse.event("status", m.encode(m.status(task, event.state, m.place(event))))
