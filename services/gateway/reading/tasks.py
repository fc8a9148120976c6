"""Tasks by id: read on, look at, cancel, confirm. A foreign tenant's task does not exist."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from millrace.task.v1.task_pb2 import Outcome
from services.chassis.errors import ErrorCode, Problem
from services.gateway.core.following import Follow, source_of
from services.gateway.core.identity import Caller
from services.gateway.core.messages import outcome_name
from services.gateway.core.task_id import is_task_id
from services.gateway.reading.departures import Departures
from services.gateway.reading.reader import Reader, Sink
from services.gateway.reading.readers import Readers
from services.tasklog.core.entries import Entry, Header, Terminal
from services.tasklog.core.ids import gen_text, parse_gen
from services.tasklog.core.reading import assemble
from services.tasklog.ports import Control, RedisAwayError, TaskControl, TokenLog

GONE = Problem(ErrorCode.GONE, "the answer is no longer kept", "task")


@dataclass(frozen=True, slots=True)
class View:
    """A task as it stands."""

    task: str
    state: str
    model: str
    pool: str
    gen: str
    offset: int
    text: str
    outcome: Outcome | None


class Tasks:
    """What clients may do with a task they hold the id of. Problems are values."""

    def __init__(
        self,
        readers: Readers,
        token_log: TokenLog,
        control: TaskControl,
        departures: Departures,
        *,
        seen_retention_s: float,
    ) -> None:
        self._readers = readers
        self._log = token_log
        self._control = control
        self._departures = departures
        self._seen_retention_s = seen_retention_s

    async def find(self, caller: Caller, task: str) -> Control | Problem:
        """Claim and state of the caller's task."""
        try:
            control = await self._control.get(task) if is_task_id(task) else None
        except RedisAwayError:
            return _redis_away()
        if control is None or control.tenant != caller.tenant:
            return Problem(ErrorCode.UNKNOWN_TASK, f"no task {task[:40]!r}", "task")
        return control

    async def resume(self, caller: Caller, task: str, gen: str, offset: int, sink: Sink) -> Reader | Problem:
        """Read on from a cursor; text and end follow on the sink."""
        try:
            number = parse_gen(gen)
        except ValueError:
            return Problem(ErrorCode.INVALID_REQUEST, "gen: not one that this platform gave out", "gen")
        if offset < 0:
            return Problem(ErrorCode.INVALID_REQUEST, "offset: must not be negative", "offset")
        control = await self.find(caller, task)
        if isinstance(control, Problem):
            return control
        try:
            if control.state == "ended" and not await self._log.read(task):
                return GONE
        except RedisAwayError:
            return _redis_away()
        reader = self._readers.open(task, sink, gen=number, offset=offset)
        if control.state != "ended":
            self._readers.watch(reader, control.pool)
        self._readers.attach(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        """The client went away; if the task has not ended, its disconnect policy decides."""
        if reader.open:
            self._readers.close(reader)
            self._departures.left(reader.task)

    async def cancel(self, caller: Caller, task: str) -> str | Problem:
        """Wish the task's end; its state."""
        control = await self.find(caller, task)
        if isinstance(control, Problem):
            return control
        if control.state == "ended":
            view = await self.view(caller, task)
            return view if isinstance(view, Problem) else view.state
        try:
            await self._departures.cancel(task, control.pool)
        except RedisAwayError:
            return _redis_away()
        return "cancelling"

    async def seen(self, caller: Caller, task: str, *, ended: bool = False) -> Problem | None:
        """The client has the whole answer: keep it for a short while only. Nothing happens before the end.

        `ended`: the client read the end of its own task here, nothing needs to be looked up.
        """
        if not ended and isinstance(problem := await self.find(caller, task), Problem):
            return problem
        try:
            if ended or any(isinstance(entry, Terminal) for entry in await self._log.read(task)):
                await self._log.expire(task, self._seen_retention_s)
        except RedisAwayError:
            return _redis_away()
        return None

    async def view(self, caller: Caller, task: str) -> View | Problem:
        """State and text so far; `gone` once the answer is no longer kept."""
        control = await self.find(caller, task)
        if isinstance(control, Problem):
            return control
        try:
            view = await self._view(task, control)
        except RedisAwayError:
            return _redis_away()
        if control.state == "ended" and view.outcome is None:
            return GONE
        return view

    async def _view(self, task: str, control: Control) -> View:
        own: Sequence[Entry] = await self._log.read(task)
        terminal = _end_of(own)
        text = own
        source = source_of(own)
        if isinstance(source, Follow):
            text = await self._log.read(source.leader)
        gen = max((e.gen for e in text if not isinstance(e, Header)), default=0)
        words = assemble(text, gen)
        state: Literal["queued", "running", "completed", "cancelled", "expired", "failed"]
        if terminal is None:
            state, outcome = "running" if own else "queued", None
        else:
            state, outcome = outcome_name(terminal.outcome), terminal.outcome
        return View(task, state, control.model, control.pool, gen_text(gen), len(words.encode()), words, outcome)


def _end_of(entries: Sequence[Entry]) -> Terminal | None:
    terminals = [entry for entry in entries if isinstance(entry, Terminal)]
    return max(terminals, key=lambda entry: entry.gen, default=None)


def _redis_away() -> Problem:
    return Problem(ErrorCode.UNAVAILABLE, "the token log is away", retry_after_s=1.0)
