"""Dispatchers in the test's process: memory adapters, the loopback, workers that do what a test says."""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

from millrace.config.v1.config_pb2 import Pool, Snapshot, Tenant
from millrace.dispatch.v1 import dispatch_pb2
from millrace.dispatch.v1.dispatch_pb2 import (
    Assign,
    Credit,
    DispatcherEvent,
    DispatcherMessage,
    Finished,
    Heartbeat,
    Hello,
    Progress,
    Running,
    Started,
    WorkerEvent,
    WorkerMessage,
)
from millrace.task.v1.task_pb2 import PRIORITY_CLASS_STANDARD, PriorityClass, Task, Usage
from services.chassis.framed_client import Line, dial
from services.chassis.framed_server import framed_server
from services.chassis.framing import method
from services.dispatcher.adapters.memory_lane_log import MemoryLaneLog, MemoryLanes
from services.dispatcher.adapters.memory_pool_lease import MemoryLeases, MemoryPoolLease
from services.dispatcher.ownership import Pace, World
from services.dispatcher.pool_actor import PoolActor
from services.dispatcher.pools import Pools
from services.dispatcher.servicer import dispatch_methods
from services.tasklog.adapters.memory_task_control import MemoryTaskControl
from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.adapters.memory_usage_log import MemoryUsageLog
from services.tasklog.core import outcomes
from services.tasklog.core.entries import Continue, Delta, Ended, Fenced, Header, Terminal
from services.tasklog.core.reading import Cursor, End
from services.tasklog.ending import Destinations, end_of_task
from tests.support.waiting import eventually

POOL = "sim"
ATTACH = method(dispatch_pb2, "Dispatch", "Attach")
FAST = Pace(
    renew_s=0.05, commit_horizon_s=0.1, commit_s=0.03, expect_s=0.3, claim_keep_s=60.0, tick_s=0.02, silence_s=1.0
)


class Dispatcher:
    """One running dispatcher: its pools and where it is spoken to."""

    def __init__(self, pools: Pools, address: str) -> None:
        self.pools, self.address = pools, address

    @property
    def actor(self) -> PoolActor:
        """Of the one pool."""
        return self.pools.actors[POOL]

    @property
    def owns(self) -> bool:
        """Does it own the pool?"""
        return bool(self.pools.actors) and self.actor.owner is not None and self.actor.owner.scheduler.caught_up

    async def die(self) -> None:
        """As by kill -9: the lease is not given back, nothing is committed any more."""
        if self.actor.owner:
            self.actor.owner.leave = _say_nothing  # type: ignore[method-assign]
        for task in list(self.pools._running.values()):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _say_nothing() -> None:
    """Instead of a last commit and the release of the lease."""


class Room:
    """What dispatchers and workers share."""

    def __init__(
        self,
        *,
        pace: Pace = FAST,
        max_attempts: int = 3,
        lease_s: float = 0.6,
        partitions: int = 1,
        read_ahead: int = 64 << 20,
    ) -> None:
        self.pace, self.lease_s, self.read_ahead = pace, lease_s, read_ahead
        self.log, self.control, self.usage = MemoryTokenLog(), MemoryTaskControl(), MemoryUsageLog()
        self.lanes = MemoryLanes(partitions)
        self.leases = MemoryLeases(lambda: self.log.run_id)
        self.to = Destinations(self.log, self.usage)
        self.snapshot = Snapshot(
            pools=[Pool(name=POOL, model="sim", slots=4, max_attempts=max_attempts)],
            tenants=[Tenant(name=name, weight=1) for name in ("anna", "bert", "cora", "dora")],
        )
        self.dispatchers: list[Dispatcher] = []
        self._numbers = itertools.count(1)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def dispatcher(self, name: str = "d1") -> Dispatcher:
        """Start one more dispatcher."""
        dispatcher = await self._stack.enter_async_context(self._dispatcher(name))
        self.dispatchers.append(dispatcher)
        return dispatcher

    @asynccontextmanager
    async def _dispatcher(self, name: str) -> AsyncIterator[Dispatcher]:
        address = ""

        def actor(pool: str) -> PoolActor:
            lease = MemoryPoolLease(self.leases, pool, address, self.lease_s)
            world = World(MemoryLaneLog(self.lanes), lease, self.control, self.to, name)
            return PoolActor(world, self.pace, 0.02, self.read_ahead)

        pools = Pools(actor)

        async with framed_server("127.0.0.1", 0, dispatch_methods(pools.actors), grace_s=0.05) as server:
            address = f"127.0.0.1:{server.port}"
            pools.configure(self.snapshot)
            try:
                yield Dispatcher(pools, address)
            finally:
                await pools.leave()

    def task(
        self,
        task_id: str = "",
        *,
        tenant: str = "anna",
        priority_class: PriorityClass = PRIORITY_CLASS_STANDARD,
        deadline_s: float = 60.0,
        tokens: int = 10,
        joined: str = "",
    ) -> Task:
        """A task as the router writes it."""
        task = Task(
            id=task_id or f"t{next(self._numbers)}",
            tenant=tenant,
            model="sim",
            pool=POOL,
            priority_class=priority_class,
            estimated_prompt_tokens=10,
            estimated_output_tokens=tokens,
            joined=joined,
        )
        now = time.time()
        task.submitted_at.FromNanoseconds(int(now * 1e9))
        task.deadline.FromNanoseconds(int((now + deadline_s) * 1e9))
        return task

    async def submit(self, task: Task | None = None, partition: int = 0) -> Task:
        """Claim, produce, accepted."""
        task = task or self.task()
        await self.control.claim(task, 600.0)
        self.lanes.append(task, partition)
        await self.control.accepted(task.id)
        return task

    async def end(self, task: Task) -> End | None:
        """What a reader of the log sees as the task's end."""
        return next((e for e in Cursor().take_log(await self.log.read(task.id)) if isinstance(e, End)), None)

    async def ended(self, task: Task, within_s: float = 10.0) -> End:
        """Wait for the task's end."""
        end = await eventually(lambda: self.end(task), within_s)
        assert end is not None
        return end

    def committed(self, priority_class: PriorityClass = PRIORITY_CLASS_STANDARD, partition: int = 0) -> int:
        """The committed offset of a partition."""
        return self.lanes.commits[priority_class, partition].offset

    async def worker(self, name: str = "w1", slots: int = 4, behave: "Behaviour | None" = None) -> "FakeWorker":
        """Attach one more worker."""
        worker = FakeWorker(self, name, slots, behave or answer("hello"))
        self._stack.push_async_callback(worker.stop)
        worker.start()
        return worker


class FakeWorker:
    """Runs tasks as `behave` says. `ran` lists its assignments."""

    def __init__(self, room: Room, name: str, slots: int, behave: "Behaviour") -> None:
        self.room, self.name, self.slots, self.behave = room, name, slots, behave
        self.boot = secrets.randbits(32)
        self.ran: list[Assign] = []
        self.stopped: list[str] = []
        self.acknowledged: list[str] = []
        self.running: dict[str, int] = {}
        self.unacked: dict[str, Finished] = {}
        self.highest_epoch = 0
        self.attached = asyncio.Event()
        self._line: Line | None = None
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._attaching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Be attached to whoever owns the pool."""
        self._attaching = asyncio.create_task(self._keep_attached())

    async def stop(self) -> None:
        """As by kill -9."""
        tasks = [t for t in (self._attaching, *self._jobs.values()) if t]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def say(self, *events: WorkerEvent) -> None:
        """Tell the dispatcher."""
        if self._line is not None:
            self._line.send(WorkerMessage(events=events).SerializeToString())

    async def _keep_attached(self) -> None:
        while True:
            owner = self.room.leases.owner(POOL)
            if owner and owner.epoch >= self.highest_epoch:
                with contextlib.suppress(OSError, TimeoutError):
                    await self._attach(owner.address)
            await asyncio.sleep(0.02)

    async def _attach(self, address: str) -> None:
        async with dial(address, ATTACH, self._hear) as self._line:
            try:
                await self._speak()
            finally:
                self.attached.clear()
                self._line = None

    async def _speak(self) -> None:
        assert self._line
        hello = Hello(
            worker=self.name,
            boot=self.boot,
            pool=POOL,
            slots=self.slots,
            highest_epoch=self.highest_epoch,
            running=[Running(task=t, attempt=a) for t, a in self.running.items()],
            finished=self.unacked.values(),
        )
        await self.say(WorkerEvent(hello=hello), WorkerEvent(credit=Credit(slots=self.slots - len(self.running))))
        beats = asyncio.create_task(self._beat())
        try:
            await self._line.listening()
            await self._line.lost.wait()
        finally:
            beats.cancel()

    def _hear(self, message: bytes) -> None:
        heard = DispatcherMessage.FromString(message)
        if heard.epoch < self.highest_epoch:
            if self._line:
                self._line.connection.abort()
            return
        self.highest_epoch = heard.epoch
        self.attached.set()
        for event in heard.events:
            self._take(event)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            await self.say(WorkerEvent(heartbeat=Heartbeat()))

    def _take(self, event: DispatcherEvent) -> None:
        match event.WhichOneof("event"):
            case "assign":
                assign = event.assign
                self.ran.append(assign)
                self.running[assign.task.id] = assign.attempt
                self.unacked.pop(assign.task.id, None)
                self._jobs[assign.task.id] = asyncio.create_task(self._run(assign))
            case "cancel":
                self.stopped.append(event.cancel.task)
            case "finished_ack":
                self.unacked.pop(event.finished_ack.task, None)
                self.acknowledged.append(event.finished_ack.task)

    async def _run(self, assign: Assign) -> None:
        await self.say(WorkerEvent(started=Started(task=assign.task.id, attempt=assign.attempt, prompt_tokens=10)))
        finished = await self.behave(self, assign)
        if self.running.get(assign.task.id) == assign.attempt:
            del self.running[assign.task.id]
        if finished is not None:
            self.unacked[assign.task.id] = finished
            await self.say(WorkerEvent(finished=finished), WorkerEvent(credit=Credit(slots=1)))
        else:
            await self.say(WorkerEvent(credit=Credit(slots=1)))

    async def progress(self, assign: Assign, tokens: int, *, cancel_wished: bool = False) -> None:
        """Tell how far a task is, and what is wished of it."""
        progress = Progress(task=assign.task.id, attempt=assign.attempt, completion_tokens=tokens)
        progress.cancel_wished = cancel_wished
        await self.say(WorkerEvent(progress=progress))


Behaviour = Callable[[FakeWorker, Assign], Awaitable[Finished | None]]


def answer(text: str, *, takes_s: float = 0.0, hold: asyncio.Event | None = None, tokens: int = 10) -> Behaviour:
    """Log the text, or what is missing of it, and its end; wait for `hold` between the two."""

    async def behave(worker: FakeWorker, assign: Assign) -> Finished | None:
        to, task, attempt = worker.room.to, assign.task, assign.attempt
        run = to.log.run_id
        header = Header(attempt, worker.name, secrets.token_hex(4), run)
        match await to.log.begin(task.id, header, 60.0):
            case Fenced():
                return None
            case Ended(terminal, found):
                await end_of_task(to, task, terminal.gen, found, terminal.outcome)
                return Finished(task=task.id, attempt=attempt, run_id=run, outcome=terminal.outcome)
            case Continue(gen, begun):
                pass
            case _:
                gen, begun = attempt, ""
        if begun != text:
            written = await to.log.append(
                run, [(task.id, Delta(attempt, gen, len(begun), len(text), text[len(begun) :]))]
            )
            if isinstance(written[0], Fenced):
                return None
        await worker.progress(assign, tokens)
        if takes_s:
            await asyncio.sleep(takes_s)
        if hold:
            await hold.wait()
        outcome = outcomes.completed(
            "stop", Usage(prompt_tokens=10, completion_tokens=tokens), outcomes.timings(task, time.time(), attempts=1)
        )
        written = await to.log.append(run, [(task.id, Terminal(attempt, gen, len(text), outcome))])
        if isinstance(written[0], Fenced):
            return None
        await end_of_task(to, task, gen, text, outcome)
        return Finished(task=task.id, attempt=attempt, run_id=run, outcome=outcome)

    return behave


def fail(reason: str = "the engine says no") -> Behaviour:
    """Every attempt fails."""

    async def behave(worker: FakeWorker, assign: Assign) -> Finished:
        await asyncio.sleep(0)
        return Finished(task=assign.task.id, attempt=assign.attempt, failure=reason)

    return behave
