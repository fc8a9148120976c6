"""An owner of a pool that does what a test says, over the loopback."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from millrace.dispatch.v1 import dispatch_pb2 as pb
from millrace.task.v1.task_pb2 import Message, Route, Sampling, Task
from services.chassis.framed_server import framed_server, refuse
from services.chassis.framing import FramedConnection, method
from services.pools.core.ownership import Owner


def task(
    name: str,
    prompt: str = "hello",
    *,
    max_tokens: int = 20,
    deadline_s: float = 60.0,
    route: Route | None = None,
    **fields: Any,
) -> Task:
    """A task record as a router would have made it."""
    made = Task(
        id=name,
        tenant="local",
        model="sim",
        pool="sim",
        messages=[Message(role="user", content=prompt)],
        sampling=Sampling(max_tokens=max_tokens),
        **fields,
    )
    made.submitted_at.FromNanoseconds(time.time_ns())
    made.deadline.FromNanoseconds(time.time_ns() + int(deadline_s * 1e9))
    if route:
        made.route.CopyFrom(route)
    return made


class FakeDispatcher:
    """Welcomes whoever attaches, keeps what it hears, acknowledges ends (`acks`), and says what it is told to say."""

    def __init__(self, epoch: int = 1, horizon_s: float = 30.0) -> None:
        self.epoch = epoch
        self.horizon_s = horizon_s
        self.acks = True
        self.events: list[pb.WorkerEvent] = []
        self.streams = 0
        self.refuses = ""  # a reason instead of a welcome
        self._news = asyncio.Condition()
        self._serving = AsyncExitStack()
        self._stream: _Stream | None = None

    async def __aenter__(self) -> Self:
        methods = {method(pb, "Dispatch", "Attach"): lambda connection: _Stream(self, connection)}
        server = await self._serving.enter_async_context(framed_server("127.0.0.1", 0, methods, grace_s=0.0))
        self.address = f"127.0.0.1:{server.port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Be gone, as a killed process is."""
        await self._serving.aclose()

    @property
    def owner(self) -> Owner:
        """The lease it holds."""
        return Owner(self.address, self.epoch)

    async def hears(self, events: Sequence[pb.WorkerEvent]) -> None:
        async with self._news:
            self.events.extend(events)
            self._news.notify_all()

    # -- say ------------------------------------------------------------------------------------------------------------

    def attempt(self, n: int) -> int:
        """The n-th attempt number of this owner."""
        return (self.epoch << 20) + n

    def assign(self, what: Task, n: int = 1, *, previous: int = 0, attempts: int = 1, run_id: str = "") -> int:
        """Assign under attempt n; `previous` is a whole attempt number. Returns the attempt's number."""
        attempt = self.attempt(n)
        assign = pb.Assign(task=what, attempt=attempt, previous_attempt=previous, attempts=attempts, run_id=run_id)
        self.say(assign=assign)
        return attempt

    def say(self, **event: Any) -> None:
        """Send one event: `assign=`, `cancel=`, ..."""
        if self._stream:
            self._stream.send(pb.DispatcherEvent(**event))

    def cut(self, *, politely: bool = True) -> None:
        """End the present stream."""
        if self._stream:
            connection = self._stream.connection
            connection.close() if politely else connection.abort()

    # -- hear -----------------------------------------------------------------------------------------------------------

    def heard(self, kind: str, name: str = "", attempt: int = 0) -> list[Any]:
        """Events of a kind so far, of one task and attempt if named."""
        found = [getattr(e, kind) for e in self.events if e.WhichOneof("event") == kind]
        return [e for e in found if (not name or e.task == name) and (not attempt or e.attempt == attempt)]

    async def hear(self, kind: str, name: str = "", attempt: int = 0, *, count: int = 1) -> Any:
        """Wait for the count-th such event."""
        async with asyncio.timeout(10), self._news:
            while len(found := self.heard(kind, name, attempt)) < count:
                await self._news.wait()
            return found[count - 1]

    @property
    def credits(self) -> int:
        """All credits since the last Hello."""
        last = max(i for i, e in enumerate(self.events) if e.HasField("hello"))
        return sum(e.credit.slots for e in self.events[last:] if e.HasField("credit"))


class _Stream:
    """The stream of one worker."""

    def __init__(self, dispatcher: FakeDispatcher, connection: FramedConnection) -> None:
        self._dispatcher = dispatcher
        self.connection = connection
        self._work: set[asyncio.Task[None]] = set()

    def take(self, message: bytes) -> None:
        to = self._dispatcher
        events = pb.WorkerMessage.FromString(message).events
        for event in events:
            if event.HasField("hello"):
                if to.refuses:
                    refuse(self.connection, to.refuses)
                    return
                to.streams += 1
                to._stream = self
                self.connection.send(b"")
                self.send(pb.DispatcherEvent(welcome=pb.Welcome(commit_horizon_s=to.horizon_s)))
            if event.HasField("finished") and to.acks:
                ack = pb.FinishedAck(task=event.finished.task, attempt=event.finished.attempt)
                self.send(pb.DispatcherEvent(finished_ack=ack))
        work = asyncio.create_task(to.hears(events))
        self._work.add(work)
        work.add_done_callback(self._work.discard)

    def send(self, event: pb.DispatcherEvent) -> None:
        self.connection.send(pb.DispatcherMessage(epoch=self._dispatcher.epoch, events=[event]).SerializeToString())

    def lost(self) -> None:
        """The worker went."""

    async def leave(self) -> None:
        """Nothing is owed."""
