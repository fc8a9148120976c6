"""Two workers through random bad days: whatever happens, each task ends once, and nobody reads a mixture of two answers.

Redis restarts, forgets and goes away, Kafka goes away, workers die or are given up while they live, engines fail, frames get
lost. Every call of the engine says other words, so a splice of two answers is seen. The dispatcher is the protocol's, reduced
to what a worker can notice.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from millrace.dispatch.v1 import dispatch_pb2 as pb
from millrace.frames.v1.frames_pb2 import FrameBatch
from millrace.task.v1.task_pb2 import Route
from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.adapters.memory_usage_log import MemoryUsageLog
from services.tasklog.core.entries import Terminal
from services.tasklog.core.reading import GAP, Cursor, End, Event, Restarted, Text
from services.tasklog.ending import Destinations
from services.tasklog.ports import RedisAwayError
from services.worker.adapters.simulator_engine import SimulatorPrompts
from services.worker.core.attempt_plan import Patience
from services.worker.core.tick import Tick
from services.worker.flusher import Flusher
from services.worker.ports import EngineChunk, EngineFault, EngineRequest, FaultKind
from services.worker.worker import Worker
from tests.support.fake_dispatcher import task

WORDS = 12
TASKS = 3
HORIZON_S = 0.1


class Chatter:
    """Every call says other words; `prefixes` holds what each continued."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._calls = itertools.count()
        self.prefixes: dict[int, str] = {}

    async def ready(self) -> bool:
        return True

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        call = next(self._calls)
        self.prefixes[call] = request.forced_prefix
        for word in range(request.forced_prefix.count(" "), WORDS):
            await asyncio.sleep(self._rng.uniform(0.0, 0.008))
            if self._rng.random() < 0.01:
                raise EngineFault(FaultKind.CONTINUE_ELSEWHERE, "bad luck")
            yield EngineChunk(f"c{call}w{word}é ", 1)
        yield EngineChunk("", 0, "stop")

    def one_answer(self, text: str) -> bool:
        """Does the text come from one line of calls, each of which continued exactly what stands before its words?"""
        words = text.split(" ")[:-1]
        while words:
            call = int(words[-1].partition("w")[0][1:])
            prefix = self.prefixes[call]
            at = prefix.count(" ")
            if any(word != f"c{call}w{n}é" for n, word in enumerate(words[at:], at)) or len(words) <= at:
                return False
            if text[: len(prefix)] != prefix:
                return False
            words, text = words[:at], prefix
        return True


@dataclass
class Reader:
    """A reader at a gateway: frames are hints, the log is the truth."""

    cursor: Cursor = field(default_factory=Cursor)
    text: str = ""
    ends: list[End] = field(default_factory=list)

    def show(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Text(text=text):
                    self.text += text
                case Restarted():
                    self.text = ""
                case End():
                    self.ends.append(event)


@dataclass
class Place:
    """A worker process."""

    name: str
    worker: Worker
    work: list[asyncio.Task[None]]

    async def die(self) -> None:
        runs = [t for run in self.worker._runs.values() for t in (run.job, run.pump) if t]
        for work in (*self.work, *runs):
            work.cancel()
        await asyncio.gather(*self.work, *runs, return_exceptions=True)


@dataclass
class Known:
    """A task as the dispatcher knows it."""

    attempt: int = 0
    holder: Place | None = None
    stage: str = "wait"
    ended_at: float = 0.0
    run_id: str = ""


class World:
    """Everything, and the dice."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.log = MemoryTokenLog()
        self.usage = MemoryUsageLog()
        self.engine = Chatter(self.rng)
        self.records = {
            name: task(name, route=Route(address="gw", boot=1, handle=n + 1))
            for n, name in enumerate(f"t{n}" for n in range(TASKS))
        }
        self.readers = {name: Reader() for name in self.records}
        self.known = {name: Known() for name in self.records}
        self.inbox: list[tuple[Place, pb.WorkerEvent]] = []
        self.quiet = False
        self.places = [self.start(f"w{n}") for n in range(2)]
        self.names = itertools.count(2)

    def start(self, name: str) -> Place:
        flusher = Flusher(self.log, self, Tick(0.002, 0.004), lambda: 0.0)
        worker = Worker(
            name=name,
            pool="sim",
            boot=1,
            slots=TASKS,
            to=Destinations(self.log, self.usage),
            engine=self.engine,
            prompts=SimulatorPrompts(),
            flusher=flusher,
            patience=Patience(5.0, 5.0),
            heartbeat_s=0.05,
            send=lambda event: self.inbox.append((place, event)),
            reattach=lambda: None,
            busy=lambda: 0.0,
        )
        work = [asyncio.create_task(c) for c in (flusher.run(), worker.tend(), worker.watch_engine())]
        place = Place(name, worker, work)
        worker.take(pb.DispatcherEvent(welcome=pb.Welcome(commit_horizon_s=HORIZON_S)))
        return place

    # -- live frames ----------------------------------------------------------------------------------------------------

    def push(self, address: str, batch: FrameBatch) -> None:
        for f in batch.frames:
            if self.rng.random() < 0.2:
                continue
            reader = self.readers[f"t{f.handle - 1}"]
            events = reader.cursor.take_frame(
                f.attempt, f.gen, f.start, f.end, f.text, f.outcome if f.HasField("outcome") else None
            )
            if events is not GAP:
                reader.show(events)

    async def watchdog(self) -> None:
        while True:
            for name, reader in self.readers.items():
                with contextlib.suppress(RedisAwayError):
                    reader.show(reader.cursor.take_log(await self.log.read(name)))
            await asyncio.sleep(0.01)

    # -- dispatcher -----------------------------------------------------------------------------------------------------

    async def dispatcher(self) -> None:
        while True:
            inbox, self.inbox = self.inbox, []
            for place, event in inbox:
                with contextlib.suppress(RedisAwayError):
                    await self.hear(place, event)
            for name, known in self.known.items():
                with contextlib.suppress(RedisAwayError):
                    if known.stage == "wait":
                        await self.assign(name, self.rng.choice(self.places))
                    elif known.stage == "end" and asyncio.get_running_loop().time() - known.ended_at > HORIZON_S:
                        await self.log.read(name)  # Redis must be there to compare its run
                        known.stage = "final" if self.log.run_id == known.run_id else "wait"
            await asyncio.sleep(0.002)

    async def hear(self, place: Place, event: pb.WorkerEvent) -> None:
        kind = event.WhichOneof("event")
        if kind not in {"finished", "fenced", "need"}:
            return
        said = getattr(event, kind)
        known = self.known[said.task]
        if kind == "finished" and place in self.places:
            ack = pb.FinishedAck(task=said.task, attempt=said.attempt)
            place.worker.take(pb.DispatcherEvent(finished_ack=ack))
        mine = known.attempt == said.attempt and known.holder is place
        if kind == "finished" and not said.failure and known.stage in {"run", "wait"}:
            if said.run_id == self.log.run_id:
                known.stage, known.run_id, known.ended_at = "end", said.run_id, asyncio.get_running_loop().time()
            elif mine:
                known.stage = "wait"
        elif kind in {"finished", "fenced"} and mine and known.stage == "run":
            known.stage = "wait"
        elif kind == "need" and mine and known.stage in {"run", "end"} and place in self.places:
            await self.assign(said.task, place)

    async def assign(self, name: str, place: Place) -> None:
        known = self.known[name]
        head = max((entry.attempt for entry in await self.log.read(name)), default=0)
        previous = known.attempt if known.holder is place else 0
        known.attempt, known.holder, known.stage = max(head, known.attempt) + 1, place, "run"
        assign = pb.Assign(task=self.records[name], attempt=known.attempt, previous_attempt=previous, attempts=1)
        place.worker.take(pb.DispatcherEvent(assign=assign))

    # -- bad days -------------------------------------------------------------------------------------------------------

    async def fault(self) -> None:
        match self.rng.choice(("restart", "forget", "away", "kafka", "kill", "give up", "nothing", "nothing")):
            case "restart":
                self.log.restart()
            case "forget":
                self.log.forget(seconds=self.rng.uniform(0.0, HORIZON_S / 2))
            case "away":
                self.log.away = not self.log.away
            case "kafka":
                self.usage.away = not self.usage.away
            case "kill":
                dead = self.places.pop(self.rng.randrange(2))
                await dead.die()
                self.places.append(self.start(f"w{next(self.names)}"))
                for known in self.known.values():
                    if known.holder is dead and known.stage == "run":
                        known.stage = "wait"
            case "give up":  # it lives on as a zombie
                running = [known for known in self.known.values() if known.stage == "run"]
                if running:
                    self.rng.choice(running).stage = "wait"


@pytest.mark.parametrize("seed", range(16))
async def test_random_bad_days_end_in_one_answer_each(seed: int) -> None:
    """Once the faults stop every task ends, for every reader once, with one whole answer, its usage complete."""
    world = World(seed)
    work = [asyncio.create_task(world.watchdog()), asyncio.create_task(world.dispatcher())]
    try:
        for _ in range(12):
            await asyncio.sleep(world.rng.uniform(0.0, 0.04))
            await world.fault()
        world.log.away = world.usage.away = False
        async with asyncio.timeout(20):
            while not all(known.stage == "final" for known in world.known.values()):
                assert not any(w.done() for w in work)
                await asyncio.sleep(0.01)
            while not all(reader.ends for reader in world.readers.values()):
                await asyncio.sleep(0.01)
    finally:
        for place in world.places:
            await place.die()
        for w in work:
            w.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    for name, reader in world.readers.items():
        late, entries = Reader(), await world.log.read(name)
        late.show(late.cursor.take_log(entries))
        for who in (reader, late):
            assert len(who.ends) == 1
            assert len(who.text.split()) == WORDS
            assert world.engine.one_answer(who.text), who.text
        if reader.cursor.gen == late.cursor.gen:  # else Redis forgot an end that was seen, and its holder died too
            assert reader.text == late.text
        end = next(e for e in entries if isinstance(e, Terminal) and e.gen == late.cursor.gen)
        usage = world.usage.newest()[name]
        assert (usage.gen, usage.outcome) == (late.cursor.gen, end.outcome)
