"""One client connection that speaks `millrace.v1`: prompts in, acknowledgments and text out.

Holds no text and no queue: what a client has not taken yet is in its connection's buffer up to one high-water mark, and beyond
that in the token log.
"""

from collections.abc import Coroutine
from typing import Any, Literal

import msgspec

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from millrace.task.v1.task_pb2 import Outcome
from services.chassis import metrics
from services.chassis.background import Background
from services.chassis.clock import monotonic
from services.chassis.errors import ErrorCode, Problem
from services.gateway.admission.submitting import Accepted, Submitting
from services.gateway.core import messages as m
from services.gateway.core.estimates import Place
from services.gateway.core.identity import Caller
from services.gateway.core.submission import Submission, check, decoded
from services.gateway.incident import internal
from services.gateway.reading.reader import Reader
from services.gateway.reading.readers import Readers
from services.gateway.reading.tasks import Tasks
from services.gateway.websocket.connection import Connection
from services.tasklog.core.ids import gen_text

STATUS_S = 0.9  # at most one status of a task in this time; its pool's owner sends one each second
FLOOD_BYTES = 1024 * 1024  # a client that asks on and on without reading the answers
FINISHED = 64  # ended tasks remembered for `seen`


class SessionContext:
    """What all sessions of a process share. `hello` is the encoded first message; `sessions` are those that are open."""

    def __init__(self, *, hello: m.Hello, submitting: Submitting, tasks: Tasks, readers: Readers) -> None:
        self.hello = m.encode(hello)
        self.max_in_flight = hello.max_in_flight
        self.submitting = submitting
        self.tasks = tasks
        self.readers = readers
        self.sessions: set[Session] = set()
        self.work = Background()  # for single messages; it outlives its session


class _Shown:
    """What the last delta and status of one reader were."""

    __slots__ = ("gen", "prefix", "status", "status_at")

    def __init__(self) -> None:
        self.gen = 0
        self.prefix = b""
        self.status: tuple[str, Place] = "", Place()
        self.status_at = float("-inf")


class _Reference(msgspec.Struct):
    """What a refused message was about, as far as it can be told."""

    key: Any = None
    task: Any = None


_decode_reference = msgspec.json.Decoder(_Reference).decode


class Session:
    """Serves one connection of an authenticated caller; implements `MessageHandler` and `Sink`."""

    __slots__ = ("_caller", "_connection", "_context", "_finished", "_in_flight", "_readers")

    def __init__(self, context: SessionContext, caller: Caller, connection: Connection) -> None:
        self._context = context
        self._caller = caller
        self._connection: Connection | None = connection
        self._readers: dict[str, Reader] | None = None  # made when needed: most connections are idle
        self._finished: list[str] | None = None
        self._in_flight = 0  # submits and resumes that are not answered yet
        context.sessions.add(self)
        metrics.gateway_sessions.inc()
        connection.send(context.hello)

    # -- MessageHandler -------------------------------------------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """One object from the client."""
        connection = self._connection
        if connection is None:
            return
        if not connection.writable and connection.buffered > FLOOD_BYTES:
            connection.close(1008, "the answers are not read")
            return
        request = decoded(m.decode_client_message, message)
        match request:
            case Problem():
                self._refuse(request, *_reference(message))
            case m.Submit():
                self._on_submit(request)
            case m.Resume():
                self._on_resume(request)
            case m.Cancel():
                self._answer(self._cancel(request.task), task=request.task)
            case m.Seen():
                self._answer(self._seen(request.task), task=request.task)
            case m.Event():
                rule = "t: user events need the recorder service, which is not installed"
                self._refuse(Problem(ErrorCode.INVALID_REQUEST, rule, "t"), task=request.task)
            case m.Ping():
                self._send(m.PONG)

    def on_writable(self) -> None:
        """The buffer drained: what was left to the log follows."""
        for reader in tuple((self._readers or {}).values()):
            self._context.readers.resume(reader)

    def on_closed(self) -> None:
        """The client is gone; its tasks' disconnect policies decide."""
        if self._connection is not None:
            self._connection = None
            self._context.sessions.discard(self)
            metrics.gateway_sessions.dec()
            readers, self._readers = self._readers, None
            for reader in (readers or {}).values():
                self._context.tasks.leave(reader)

    def go_away(self, reconnect_in_s: float) -> None:
        """The gateway leaves: say so and close. Running tasks go on."""
        if self._connection is not None:
            self._send(m.encode(m.GoingAway(reconnect_in_s=round(reconnect_in_s, 2))))
            self._connection.close(1012, "going away")

    # -- Sink -----------------------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """May more text be given to the connection?"""
        return self._connection is not None and self._connection.writable

    def on_text(self, reader: Reader, gen: int, offset: int, text: str) -> None:
        """One delta."""
        shown = _shown(reader)
        if shown.gen != gen:
            shown.gen, shown.prefix = gen, m.delta_prefix(reader.task, gen_text(gen))
        self._send(m.delta(shown.prefix, offset, text))

    def on_restarted(self, reader: Reader, gen: int) -> None:
        """The text so far was lost."""
        self._send(m.encode(m.Restarted(task=reader.task, gen=gen_text(gen))))

    def on_end(self, reader: Reader, gen: int, offset: int, outcome: Outcome) -> None:
        """The end of a task."""
        self._forget(reader)
        self._finished = [*(self._finished or ())[-FINISHED + 1 :], reader.task]
        self._send(m.encode(m.done(reader.task, gen_text(gen), offset, outcome)))

    def on_status(self, reader: Reader, status: TaskStatus) -> None:
        """Where a waiting task stands; at most once per second and only on change."""
        shown = _shown(reader)
        now, at = (status.state, m.place(status)), monotonic()
        if now != shown.status and at - shown.status_at >= STATUS_S:
            shown.status, shown.status_at = now, at
            self._send(m.encode(m.status(reader.task, *now)))

    def on_gone(self, reader: Reader, code: Literal["unknown", "expired"]) -> None:
        """Nothing is left to read."""
        self._forget(reader)
        self._send(m.encode(m.Gone(task=reader.task, code=code)))

    # -- what clients ask -----------------------------------------------------------------------------------------------

    def _on_submit(self, request: m.Submit) -> None:
        submission = check(request)
        if isinstance(submission, Problem):
            self._refuse(submission, key=request.key or "")
        elif self._has_room(key=submission.key):
            self._in_flight += 1
            self._answer(self._submit(submission), key=submission.key)

    def _on_resume(self, request: m.Resume) -> None:
        if self._has_room(task=request.task):
            self._in_flight += 1
            self._answer(self._resume(request), task=request.task)

    async def _submit(self, submission: Submission) -> None:
        try:
            result = await self._context.submitting.accept(self._caller, submission, self)
        finally:
            self._in_flight -= 1
        if not isinstance(result, Accepted):
            self._refuse(result.problem, key=submission.key)
            return
        assert result.reader is not None
        if self._keep(result.reader):
            ack = m.Ack(
                key=result.key,
                task=result.task,
                state=result.state,
                position=result.place.position,
                eta_s=result.place.eta_s,
                cache=result.cache,
            )
            self._send(m.encode(ack))
            self._context.submitting.begin(result)

    async def _resume(self, request: m.Resume) -> None:
        try:
            result = await self._context.tasks.resume(self._caller, request.task, request.gen, request.offset, self)
        finally:
            self._in_flight -= 1
        if isinstance(result, Problem):
            self._refuse_task(result, request.task)
        else:
            self._keep(result)

    async def _cancel(self, task: str) -> None:
        result = await self._context.tasks.cancel(self._caller, task)
        if isinstance(result, Problem):
            self._refuse_task(result, task)

    async def _seen(self, task: str) -> None:
        known = task in (self._finished or ())
        problem = await self._context.tasks.seen(self._caller, task, ended=known)
        if problem is not None:
            self._refuse_task(problem, task)

    def _answer(self, work: Coroutine[None, None, None], key: str = "", task: str = "") -> None:
        self._context.work.spawn(self._guarded(work, key, task))

    async def _guarded(self, work: Coroutine[None, None, None], key: str, task: str) -> None:
        try:
            await work
        except Exception as bug:  # noqa: BLE001 - the client gets an answer, whatever it was
            self._refuse(internal(bug), key=key, task=task)

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _keep(self, reader: Reader) -> bool:
        """The session reads the task from now on, in place of an earlier reader of it; False if it is over."""
        if self._connection is None:
            self._context.tasks.leave(reader)
            return False
        if self._readers is None:
            self._readers = {}
        earlier = self._readers.get(reader.task)
        self._readers[reader.task] = reader
        if earlier is not None:
            self._context.readers.close(earlier)
        return True

    def _forget(self, reader: Reader) -> None:
        if self._readers and self._readers.get(reader.task) is reader:
            del self._readers[reader.task]

    def _send(self, message: bytes) -> None:
        if self._connection is not None:
            self._connection.send(message)

    def _refuse(self, problem: Problem, key: str = "", task: str = "") -> None:
        self._send(m.encode(m.error(problem, key=key, task=task)))

    def _refuse_task(self, problem: Problem, task: str) -> None:
        if problem.code is ErrorCode.UNKNOWN_TASK:
            self._send(m.encode(m.Gone(task=task, code="unknown")))
        elif problem.code is ErrorCode.GONE:
            self._send(m.encode(m.Gone(task=task, code="expired")))
        else:
            self._refuse(problem, task=task)

    def _has_room(self, key: str = "", task: str = "") -> bool:
        """May the connection read one more task? Refused otherwise."""
        limit = self._context.max_in_flight
        if len(self._readers or ()) + self._in_flight < limit:
            return True
        rule = f"this connection reads {limit} unfinished tasks already"
        self._refuse(Problem(ErrorCode.LIMITED, rule, retry_after_s=1.0), key, task)
        return False


def _shown(reader: Reader) -> _Shown:
    shown = reader.tag
    if not isinstance(shown, _Shown):
        shown = reader.tag = _Shown()
    return shown


def _reference(message: bytes) -> tuple[str, str]:
    """Key and task of a message that was refused, so that the client can tell which it was."""
    about = decoded(_decode_reference, message)
    if isinstance(about, Problem):
        return "", ""
    key, task = about.key, about.task
    return key if isinstance(key, str) else "", task if isinstance(task, str) else ""
