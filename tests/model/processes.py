"""The processes of the token protocol: sessions of gateways, the dispatcher, workers, each step a border between operations."""

import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from millrace.task.v1.task_pb2 import Outcome, Route
from services.tasklog.core.entries import Continue, Delta, Ended, Fenced, Header, Lost, Terminal, Written
from services.tasklog.core.reading import GAP, Cursor
from services.tasklog.ending import TaskEnded, end_of_task, end_without_worker
from services.tasklog.ports import RunChangedError
from tests.model.stepping import step
from tests.model.wrong_designs import BlindCursor

if TYPE_CHECKING:
    from tests.model.schedules import Reader, World

HORIZON: Final = 45  # an end this old is not looked at again; all times in steps
SILENT: Final = 80  # a worker that did not move for so long is dead to the dispatcher
WATCHDOG: Final = 25  # a gateway reads a silent task again
KEEP_S: Final = 1e9


class Process:
    """A worker, a gateway or the dispatcher: it crashes, pauses and starts again."""

    def __init__(self, world: "World", name: str, main: Any) -> None:
        self.world, self.name, self.main = world, name, main
        self.boot, self.moved, self.paused_until = 0, 0, 0
        self.start()

    def start(self) -> None:
        self.boot, self.alive, self.paused_until = self.boot + 1, True, 0
        self.inbox: list[Any] = []
        self.kept: Kept | None = None
        self.cancelled = 0  # the attempt that the dispatcher wants ended
        self.run_id = self.world.log.run_id
        self.coroutine: Coroutine[Any, Any, None] = self.main(self.world, self)

    def crash(self) -> None:
        self.alive = False
        self.coroutine.close()

    def move(self) -> None:
        self.moved = self.world.now
        self.coroutine.send(None)


@dataclass
class Kept:
    """A text that a worker holds."""

    attempt: int
    gen: int
    text: str
    full: str
    outcome: Outcome | None = None
    ended_at: int | None = None


class Session:
    """One reader at one gateway: route, log, then frames; the log again on a gap, on silence, after a change of Redis."""

    def __init__(self, world: "World", gateway: Process, reader: "Reader", *, submitted: bool) -> None:
        self.world, self.gateway, self.reader = world, gateway, reader
        self.route = Route(address=gateway.name, boot=gateway.boot, handle=1)
        self.attached = world.log.run_id if submitted else ""  # the submitter's route is in the record
        self.frames: list[tuple[Any, ...]] = []
        self.cursor = (BlindCursor if world.bad == "blind_reader" else Cursor)(reader.gen, len(reader.text.encode()))
        self.coroutine: Coroutine[Any, Any, None] | None = None

    def move(self) -> None:
        self.coroutine = self.coroutine or self._follow()
        self.coroutine.send(None)

    async def _follow(self) -> None:
        world, quiet_since = self.world, -WATCHDOG
        while True:
            await step()
            if self.attached != world.log.run_id:
                self.attached, quiet_since = world.log.run_id, -WATCHDOG
                await world.log.attach(world.task.id, self.route, KEEP_S)
            elif self.frames:
                quiet_since = world.now
                events = self.cursor.take_frame(*self.frames.pop(0))
                if events is GAP:
                    await step()
                    await self._read()
                else:
                    self.reader.take(events)
            elif world.now - quiet_since >= WATCHDOG:
                quiet_since = world.now
                await self._read()

    async def _read(self) -> None:
        log = self.world.log
        self.reader.take(self.cursor.take_log(await log.read(self.world.task.id, self.cursor.after)))


async def gateway(world: "World", process: Process) -> None:
    """Moves one of its sessions at a time."""
    while True:
        await step()
        process.inbox = [session for session in process.inbox if not session.reader.end]
        if process.inbox:
            world.rng.choice(process.inbox).move()


# -- the dispatcher -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What a worker tells the dispatcher: `finished`, `fenced`, `wished`, its cancel, or `need`, the next attempt for the text
    it holds."""

    worker: Process
    boot: int
    kind: str
    attempt: int
    run_id: str


class Owner(Process):
    """Gives attempts. It does not crash here: attempt numbers are unique across owners, so an owner that gives an attempt
    although another one runs stands for its successor."""

    def __init__(self, world: "World") -> None:
        self.state, self.final, self.impatient = "wait", False, False
        self.leads = world.rng.random() < 0.2  # others follow this task: no cancel is granted while it runs
        self.attempt, self.worker, self.worker_boot, self.ended_run, self.ended_at = 0, None, 0, "", 0
        super().__init__(world, "D", owner)

    def next_attempt(self) -> int:
        self.attempt += self.world.rng.choice((1, 1, 1000))
        return self.attempt

    def give(self, worker: Process) -> None:
        mine = worker is self.worker and worker.boot == self.worker_boot
        previous = self.attempt if mine else 0
        self.worker, self.worker_boot, self.state = worker, worker.boot, "run"
        worker.inbox.append((self.next_attempt(), previous, self.world.log.run_id))

    def ended(self, run_id: str) -> None:
        """Under another run the end may be forgotten: a new attempt runs the end routine again."""
        self.state = "end" if run_id == self.world.log.run_id else "wait"
        self.ended_run, self.ended_at = run_id, self.world.now


async def owner(world: "World", me: Owner) -> None:
    """Messages first, then whatever the state asks for."""
    while True:
        await step()
        if me.final:
            continue
        if me.inbox:
            _hear(world, me, me.inbox.pop(0))
        elif me.state == "run":
            worker = me.worker
            gone = not worker.alive or worker.boot != me.worker_boot or world.now - worker.moved > SILENT
            if gone or me.impatient:
                me.state, me.impatient = "wait", False
        elif me.state == "end":
            if me.ended_run != world.log.run_id:
                me.state = "wait"
            else:
                me.final = world.now - me.ended_at > HORIZON
        elif await world.log.cancel_wished(world.task.id):
            with contextlib.suppress(RunChangedError):
                match await end_without_worker(
                    world.to, world.task, me.next_attempt(), me.name, Outcome(finish_reason="cancelled")
                ):
                    case TaskEnded(run_id):
                        me.ended(run_id)
        else:
            alive = [worker for worker in world.workers if worker.alive and world.now - worker.moved < SILENT]
            holders = [worker for worker in alive if worker is me.worker and worker.boot == me.worker_boot]
            if alive:
                me.give((holders or [world.rng.choice(alive)])[0])


def _hear(world: "World", me: Owner, said: Said) -> None:
    match said.kind:
        case "finished" if me.state != "end":
            me.ended(said.run_id)
        case "fenced" if said.attempt == me.attempt and me.state == "run":
            me.state = "wait"
        case "wished" if said.attempt == me.attempt and said.worker.boot == said.boot and not me.leads:
            said.worker.cancelled = said.attempt
        case "need" if said.attempt == me.attempt or _careless(world):
            if said.worker.alive and said.worker.boot == said.boot:
                me.give(said.worker)


def _careless(world: "World") -> bool:
    return world.bad == "write_again_unasked"


# -- the worker ---------------------------------------------------------------------------------------------------------


async def worker(world: "World", me: Process) -> None:
    """Runs attempts; asks for another when it holds a text and Redis may have forgotten it."""
    while True:
        await step()
        if me.run_id != world.log.run_id:
            me.run_id = world.log.run_id
            if me.kept and me.kept.ended_at and world.now - me.kept.ended_at > HORIZON:
                me.kept = None
            elif me.kept:
                _say(world, me, "need", me.kept.attempt)
        if me.inbox:
            attempt, previous, run_id = me.inbox.pop(0)
            if me.kept and (me.kept.attempt == previous or _careless(world)):
                me.kept.attempt = attempt
            else:
                me.kept = None
            try:
                await _attempt(world, me, attempt, run_id)
            except RunChangedError:
                _say(world, me, "need" if me.kept else "fenced", attempt)


def _bytes(text: str) -> int:
    return len(text.encode())


def _say(world: "World", me: Process, kind: str, attempt: int) -> None:
    world.owner.inbox.append(Said(me, me.boot, kind, attempt, me.run_id))


async def _attempt(world: "World", me: Process, attempt: int, run_id: str) -> None:
    """Fence, read below, then engine text to the log and to the gateways, then the end.

    Only in the run in which it was given: another one may have forgotten the header of a higher attempt.
    """
    task, me.run_id = world.task, world.log.run_id
    begun = await world.log.begin(task.id, Header(attempt, me.name, f"{me.name}.{me.boot}", run_id), KEEP_S)
    await step()
    match begun:
        case Fenced():
            me.kept = None
            return _say(world, me, "fenced", attempt)
        case Ended(terminal, text):
            await end_of_task(world.to, task, terminal.gen, text, terminal.outcome)
            return _say(world, me, "finished", attempt)
    kept, logged = me.kept, 0  # characters in the log that may be continued; a holder trusts none and writes all again
    if kept is None:
        gen, text = (begun.gen, begun.text) if isinstance(begun, Continue) else (attempt, "")
        kept, logged = Kept(attempt, gen, text, world.answer(text)), len(text)
        me.kept = kept
        if world.newest is None or world.newest.attempt < attempt:
            world.newest = kept
    again = bool(kept.text) and not logged
    while kept.outcome is None:
        if not again:
            kept.text = kept.full[: len(kept.text) + world.rng.choice((1, 1, 2))]
        if len(kept.text) > logged:
            delta = Delta(attempt, kept.gen, _bytes(kept.text[:logged]), _bytes(kept.text), kept.text[logged:])
            written = await _log_and_notify(world, me, run_id, [delta], whole=again)
            if written is None:
                return None
            logged, again = len(kept.text), False
            if written.cancel:
                _say(world, me, "wished", attempt)
        await step()
        cancelled = me.cancelled == attempt
        if cancelled or kept.text == kept.full:
            kept.outcome = Outcome(finish_reason="cancelled" if cancelled else "stop")
    entries: list[Delta | Terminal] = [Terminal(attempt, kept.gen, _bytes(kept.text), kept.outcome)]
    if again:
        entries.insert(0, Delta(attempt, kept.gen, 0, _bytes(kept.text), kept.text))
    if await _log_and_notify(world, me, run_id, entries, whole=again) is None:
        return None
    kept.ended_at = world.now
    await end_of_task(world.to, task, kept.gen, kept.text, kept.outcome)
    return _say(world, me, "finished", attempt)


async def _log_and_notify(
    world: "World", me: Process, run_id: str, entries: list[Delta | Terminal], *, whole: bool
) -> Written | None:
    """One tick. None: fenced, and the dispatcher knows. A reply may be lost; then the same is written again."""
    log, task = world.log, world.task.id
    if world.bad == "notify_before_log":
        _notify(world, entries, Written())
        await step()
    for _ in range(2 if world.chance(0.05) else 1):
        if whole:
            delta = entries[0] if isinstance(entries[0], Delta) else None
            assert delta
            terminal = entries[-1] if isinstance(entries[-1], Terminal) else None
            result = await log.rewrite(run_id, task, delta, terminal)
        else:
            (result,) = await log.append(run_id, [(task, entry) for entry in entries])
        await step()
    match result:
        case Lost():
            raise RunChangedError("the log is lost")
        case Fenced() if world.bad != "ignore_the_fence":
            me.kept = None
            _say(world, me, "fenced", entries[-1].attempt)
            return None
        case Fenced():
            result = Written()
    _notify(world, entries, result)
    return result


def _notify(world: "World", entries: list[Delta | Terminal], written: Written) -> None:
    readers = {(route.address, route.boot) for route in (world.route, *written.routes)}
    for address, boot in sorted(readers):
        for entry in entries:
            start, text = (entry.start, entry.text) if isinstance(entry, Delta) else (entry.end, "")
            outcome = entry.outcome if isinstance(entry, Terminal) else None
            world.frames.append((address, boot, (entry.attempt, entry.gen, start, entry.end, text, outcome)))
