"""An owner of a pool that does what a test says, over real gRPC on the loopback."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import grpc

from millrace.dispatch.v1 import dispatch_pb2 as pb
from millrace.dispatch.v1.dispatch_pb2_grpc import DispatchServicer, add_DispatchServicer_to_server
from millrace.task.v1.task_pb2 import Message, Route, Sampling, Task
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


class FakeDispatcher(DispatchServicer):
    """Welcomes whoever attaches, keeps what it hears, acknowledges ends (`acks`), and says what it is told to say."""

    def __init__(self, epoch: int = 1, horizon_s: float = 30.0) -> None:
        self.epoch = epoch
        self.horizon_s = horizon_s
        self.acks = True
        self.events: list[pb.WorkerEvent] = []
        self.streams = 0
        self._news = asyncio.Condition()
        self._outbox: asyncio.Queue[pb.DispatcherEvent | grpc.StatusCode] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        add_DispatchServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Be gone, as a killed process is."""
        await self._server.stop(None)

    @property
    def owner(self) -> Owner:
        """The lease it holds."""
        return Owner(self.address, self.epoch)

    async def Attach(self, requests: Any, context: Any) -> AsyncIterator[pb.DispatcherMessage]:
        self.streams += 1
        self._outbox = outbox = asyncio.Queue()
        reader = asyncio.create_task(self._read(requests, outbox))
        try:
            while True:
                event = await outbox.get()
                if isinstance(event, grpc.StatusCode):
                    await context.abort(event, "cut")
                yield pb.DispatcherMessage(epoch=self.epoch, events=[event])
        finally:
            reader.cancel()

    async def _read(self, requests: Any, outbox: asyncio.Queue[Any]) -> None:
        async for message in requests:
            for event in message.events:
                if event.HasField("hello"):
                    outbox.put_nowait(pb.DispatcherEvent(welcome=pb.Welcome(commit_horizon_s=self.horizon_s)))
                if event.HasField("finished") and self.acks:
                    ack = pb.FinishedAck(task=event.finished.task, attempt=event.finished.attempt)
                    outbox.put_nowait(pb.DispatcherEvent(finished_ack=ack))
            async with self._news:
                self.events.extend(message.events)
                self._news.notify_all()

    # -- say ------------------------------------------------------------------------------------------------------------

    def attempt(self, n: int) -> int:
        """The n-th attempt number of this owner."""
        return (self.epoch << 20) + n

    def assign(self, what: Task, n: int = 1, *, previous: int = 0, attempts: int = 1) -> int:
        """Assign under attempt n; `previous` is a whole attempt number. Returns the attempt's number."""
        attempt = self.attempt(n)
        self.say(assign=pb.Assign(task=what, attempt=attempt, previous_attempt=previous, attempts=attempts))
        return attempt

    def say(self, **event: Any) -> None:
        """Send one event: `cancel=`, `drain=`, ..."""
        self._outbox.put_nowait(pb.DispatcherEvent(**event))

    def cut(self, code: grpc.StatusCode) -> None:
        """End the present stream with a status."""
        self._outbox.put_nowait(code)

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
