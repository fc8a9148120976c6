"""The line to the pool's owner: found by its lease, kept as long as both live, taken up again within a few hundred ms."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import grpc.aio

from millrace.dispatch.v1.dispatch_pb2 import DispatcherEvent, Hello, WorkerEvent, WorkerMessage
from millrace.dispatch.v1.dispatch_pb2_grpc import DispatchStub
from services.chassis.backoff import backoff
from services.chassis.grpc_channel import channel
from services.chassis.pace import Pace
from services.pools.core.ownership import Owner
from services.tasklog.ports import RedisAwayError

log = logging.getLogger(__name__)

GATHER_S: Final = 0.010  # between two messages: a message costs far more than an event
FOLLOW_S: Final = 0.25  # a dispatcher that stands still breaks no stream; its lease tells


class Party(Protocol):
    """Who is attached: the worker."""

    def hello(self) -> Hello:
        """Introduce oneself; the highest epoch is filled in here."""
        ...

    def take(self, event: DispatcherEvent) -> None:
        """Obey."""
        ...

    def detached(self) -> None:
        """The stream is gone, and what was sent last may not have arrived."""
        ...


class Attach:
    """One stream to whoever owns the pool. Obeys the highest epoch only.

    `find` gives the owner, None between two owners. While Redis is away the last one known is tried.
    """

    def __init__(self, find: Callable[[], Awaitable[Owner | None]]) -> None:
        self._find = find
        self._owner: Owner | None = None
        self._outbox: list[WorkerEvent] | None = None  # None: nobody listens
        self._pace = Pace(lambda: GATHER_S)
        self._again = asyncio.Event()
        self.epoch = 0

    def send(self, event: WorkerEvent) -> None:
        """Tell the owner, with what else gathers; dropped when nobody listens: the next Hello says it all."""
        if self._outbox is not None:
            self._outbox.append(event)
            self._pace.wake()

    def reattach(self) -> None:
        """Say Hello again, on a new stream: what was promised on the present one is void."""
        self._again.set()

    async def run(self, party: Party) -> None:
        """Stay attached until cancelled."""
        delays = backoff(0.05, 0.3)
        while True:
            try:
                if await self._look():
                    await self._attach(party)
                    delays = backoff(0.05, 0.3)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as reason:
                log.debug("no line to the dispatcher: %s", _words(reason))
            await asyncio.sleep(next(delays))

    async def _look(self) -> bool:
        """Look up the owner. Is there one to try?"""
        try:
            self._owner = await self._find()
        except RedisAwayError:
            log.debug("Redis is away, the last owner known stands")
        return self._owner is not None

    async def _attach(self, party: Party) -> None:
        assert self._owner
        self._again.clear()
        async with channel(self._owner.address) as line:
            stream = DispatchStub(line).Attach()  # type: ignore[no-untyped-call]
            hello = party.hello()
            hello.highest_epoch = self.epoch
            self._outbox = [WorkerEvent(hello=hello)]
            self._pace.wake()
            sides = [
                asyncio.create_task(side, name=f"attach {name}")
                for name, side in (
                    ("reader", self._read(stream, party)),
                    ("writer", self._write(stream)),
                    ("follower", self._follow(self._owner)),
                    ("again", self._again.wait()),
                )
            ]
            try:
                done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
                for side in done:
                    if not side.cancelled():  # as grpc says it when the other end cancels the call
                        side.result()
            finally:
                self._outbox = None
                party.detached()
                for side in sides:
                    side.cancel()
                stream.cancel()
                await asyncio.gather(*sides, return_exceptions=True)

    async def _read(self, stream: Any, party: Party) -> None:
        async for message in stream:
            if message.epoch < self.epoch:
                log.warning("epoch %d speaks, but %d was heard: not obeyed", message.epoch, self.epoch)
                return
            self.epoch = message.epoch
            for event in message.events:
                party.take(event)

    async def _write(self, stream: Any) -> None:
        while True:
            await self._pace.wait()
            assert self._outbox is not None
            events, self._outbox = self._outbox, []
            if events:
                await stream.write(WorkerMessage(events=events))

    async def _follow(self, owner: Owner) -> None:
        """Return once the lease names another owner than the one that speaks on the stream."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                found = await self._find()
            except RedisAwayError:
                continue
            if found and (found.address != owner.address or found.epoch > max(owner.epoch, self.epoch)):
                log.info("the pool has a new owner at %s, epoch %d", found.address, found.epoch)
                return


def _words(reason: Exception) -> str:
    if isinstance(reason, grpc.aio.AioRpcError):
        return f"{reason.code().name} {reason.details()}"
    return str(reason)
