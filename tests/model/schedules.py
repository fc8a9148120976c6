"""Random schedules over the real token log, cursor, beginnings and end routine.

One task, two or three workers, two gateways with two readers, a dispatcher, and a Redis that forgets. Every process is a
coroutine; each `step()` is a border between atomic operations, and the log in memory steps wherever Redis may serve others
between two commands. A seeded scheduler picks who moves, which frame arrives and which fault strikes; after FAULTS_END steps
nothing fails any more and everything must settle.

A character of an answer names its engine run and its place, so no gap, repeat or splice of two runs is a prefix of any
run's text. What must hold, by the names that a Violation carries:

S1 a reader holds a prefix of one answer since it was last told `restarted`, and readers of one gen agree
S2 a reader gets one end and nothing after it
S3 once nothing fails any more, every reader gets its end
S5 nothing of a fenced attempt beyond the point where the next one continued is shown
S8 usage is complete, once, and of the answer that readers saw

`wrong_designs.py` has designs that must be caught, which shows that the schedules can catch something.
"""

import contextlib
import random
from typing import Any, Final

from millrace.task.v1.task_pb2 import Route, Task
from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.adapters.memory_usage_log import MemoryUsageLog
from services.tasklog.core.reading import End, Event, Restarted, Text
from services.tasklog.ending import Destinations
from tests.model.processes import KEEP_S, Kept, Owner, Process, Session, gateway, worker
from tests.model.stepping import step
from tests.model.wrong_designs import ContinuesAcrossRuns, ReadsThenFences

FSYNC: Final = 30  # Redis may forget writes younger than this; less than the horizon; all times in steps
FAULTS_END: Final = 300
LIMIT: Final = 3000  # everything must have settled by then


class Violation(Exception):  # noqa: N818
    """What must hold does not; args: its name, what happened."""


class SteppingUsage(MemoryUsageLog):
    """Kafka takes a moment: the process may die before and after."""

    async def write(self, record: Any) -> None:
        await step()
        await super().write(record)
        await step()


class Reader:
    """A client. It keeps its place over reconnections and checks what it is shown."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.text, self.gen, self.end = "", 0, None
        self.session: Session | None = None

    def take(self, events: list[Event]) -> None:
        for event in events:
            if self.end:
                raise Violation("S2", f"{self.name} is shown {event} after the end")
            match event:
                case Restarted(gen):
                    self.text, self.gen = "", gen
                case Text(gen, offset, text):
                    if self.text and gen != self.gen:
                        raise Violation("S1", f"{self.name} goes from text {self.gen} to {gen} and is not told")
                    self.text, self.gen = self.text + text, gen
                    self._check(offset)
                case End(gen, offset, outcome):
                    self.gen, self.end = gen, outcome.finish_reason
                    self._check(offset)

    def _check(self, offset: int) -> None:
        newest, shown = self.world.newest, self.text
        if len(shown.encode()) != offset:
            raise Violation("S1", f"{self.name} holds {len(shown.encode())} bytes at offset {offset}")
        if shown and not any(full.startswith(shown) for full in self.world.answers):
            raise Violation("S1", f"{self.name} holds {shown!r}, a prefix of no answer")
        if newest and newest.gen == self.gen and not newest.full.startswith(shown):
            raise Violation("S5", f"{self.name} holds {shown!r}, attempt {newest.attempt} writes {newest.full!r}")


class World:
    """One schedule."""

    def __init__(self, seed: int, bad: str = "") -> None:
        self.rng, self.bad, self.now = random.Random(seed), bad, 0
        logs = {"read_then_fence": ReadsThenFences, "continue_across_runs": ContinuesAcrossRuns}
        self.log = logs.get(bad, MemoryTokenLog)(lambda: self.now, step)
        self.usage = SteppingUsage()
        self.to = Destinations(self.log, self.usage)
        self.task = Task(id="t")
        self.task.retention.FromSeconds(10**9)
        self.answers: list[str] = []
        self.newest: Kept | None = None
        self.frames: list[tuple[str, int, tuple[Any, ...]]] = []
        self.workers = [Process(self, f"W{i}", worker) for i in range(self.rng.choice((2, 3)))]
        self.gateways = [Process(self, f"G{i}", gateway) for i in range(2)]
        self.owner = Owner(self)
        self.readers = [Reader(self, f"R{i}") for i in range(2)]
        self.level = self.rng.choice((0, 1, 2, 3))
        self.route = self.attach(self.readers[0], self.gateways[0], submitted=True)

    def run(self) -> None:
        """Raises Violation."""
        try:
            while not self._settled():
                self._move()
            self._check_the_ends()
        finally:
            for process in self._processes():
                process.crash()

    def chance(self, probability: float) -> bool:
        """Of a fault."""
        return self.level > 0 and self.now < FAULTS_END and self.rng.random() < probability * self.level

    def answer(self, prefix: str) -> str:
        """What a new engine run makes of the prefix: characters of two, three and four bytes."""
        first = len(self.answers) * 32
        length = max(len(prefix), self.rng.randrange(2, 7))
        planes = (0x100, 0x4E00, 0x1F000)
        self.answers.append(prefix + "".join(chr(planes[i % 3] + first + i) for i in range(len(prefix), length)))
        return self.answers[-1]

    def attach(self, reader: Reader, gateway: Process, *, submitted: bool) -> Route:
        reader.session = Session(self, gateway, reader, submitted=submitted)
        gateway.inbox.append(reader.session)
        return reader.session.route

    # -- inside -------------------------------------------------------------------------------------------------------

    def _processes(self) -> list[Process]:
        return [*self.workers, *self.gateways, self.owner]

    def _move(self) -> None:
        self.now += 1
        if self.now > LIMIT:
            raise Violation("S3", f"not settled: {self.owner.state}, ends {[reader.end for reader in self.readers]}")
        if self.now == FAULTS_END:
            for process in self._processes():
                process.paused_until = 0
                if not process.alive:
                    process.start()
        if self.chance(0.012):
            self._fault()
        pick = self.rng.random()
        if pick < 0.2 and self.frames:
            self._deliver(self.frames.pop(self.rng.randrange(min(self.rng.choice((1, 3, 99)), len(self.frames)))))
        elif pick < 0.24:
            self._reconnect()
        else:
            process = self.rng.choice([*self._processes(), *self.gateways])
            if process.alive and process.paused_until <= self.now:
                process.move()

    def _deliver(self, frame: tuple[str, int, tuple[Any, ...]]) -> None:
        name, boot, content = frame
        gateway = next(process for process in self.gateways if process.name == name)
        if gateway.alive and gateway.boot == boot and not self.chance(0.1):
            for session in gateway.inbox:
                session.frames.append(content)

    def _reconnect(self) -> None:
        for reader in self.readers:
            connected = reader.session and reader.session in reader.session.gateway.inbox
            gateways = [gateway for gateway in self.gateways if gateway.alive]
            if not reader.end and not connected and gateways:
                self.attach(reader, self.rng.choice(gateways), submitted=False)

    def _fault(self) -> None:
        rng, process = self.rng, self.rng.choice([*self.workers, *self.workers, *self.gateways])
        match rng.choice(("crash", "pause", "pause", "restart", "drop", "forget", "power", "cancel", "lease")):
            case "crash" if process.alive:
                process.crash()
            case "pause":
                process.paused_until = self.now + rng.randrange(10, rng.choice((60, 250)))
            case "restart":
                for dead in [process for process in self._processes() if not process.alive]:
                    dead.start()
            case "drop":
                for gateway in self.gateways:
                    gateway.inbox.clear()
            case "forget":
                self.log.forget(seconds=rng.randrange(FSYNC))
            case "power":
                rng.choice(self.workers).crash()
                self.log.forget(seconds=rng.randrange(FSYNC))
            case "cancel" if rng.random() < 0.3:
                with contextlib.suppress(StopIteration):
                    self.log.wish_cancel(self.task.id, KEEP_S).send(None)
            case "lease":
                self.owner.impatient = True

    def _settled(self) -> bool:
        over = self.level == 0 or self.now > FAULTS_END
        return over and self.owner.final and all(reader.end for reader in self.readers)

    def _check_the_ends(self) -> None:
        seen = {(reader.gen, reader.text, reader.end) for reader in self.readers}
        gens = {gen for gen, _, _ in seen}
        if len(gens) != len(seen):
            raise Violation("S1", f"readers of one text disagree: {seen}")
        record = self.usage.newest().get(self.task.id)
        ends = {gen: end for gen, _, end in seen}
        if record is None or (record.gen in ends and record.outcome.finish_reason != ends[record.gen]):
            raise Violation("S8", f"usage says {record}, readers saw {ends}")
