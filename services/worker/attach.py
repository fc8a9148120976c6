"""The line to the pool's owner: found by its lease, kept as long as both live, taken up again within a few hundred ms."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from millrace.dispatch.v1 import dispatch_pb2
from millrace.dispatch.v1.dispatch_pb2 import DispatcherEvent, DispatcherMessage, Hello, WorkerEvent, WorkerMessage
from services.chassis.background import call_off
from services.chassis.backoff import backoff
from services.chassis.framed_client import Line, dial
from services.chassis.framing import method
from services.chassis.gather import Gather
from services.pools.core.ownership import Owner
from services.tasklog.ports import RedisAwayError

log = logging.getLogger(__name__)

ATTACH: Final = method(dispatch_pb2, "Dispatch", "Attach")
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
        self._outbox: Gather[WorkerEvent] | None = None  # None: nobody listens
        self._again = asyncio.Event()
        self.epoch = 0

    def send(self, event: WorkerEvent) -> None:
        """Tell the owner, with what else gathers; dropped when nobody listens: the next Hello says it all."""
        if self._outbox is not None:
            self._outbox.put(event)

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
            except (OSError, TimeoutError) as reason:
                log.debug("no line to the dispatcher: %s", reason)
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

        def take(message: bytes) -> None:
            self._take(DispatcherMessage.FromString(message), party, line)

        async with dial(self._owner.address, ATTACH, take) as line:
            self._outbox = Gather(lambda events: line.send(WorkerMessage(events=events).SerializeToString()), GATHER_S)
            hello = party.hello()
            hello.highest_epoch = self.epoch
            self.send(WorkerEvent(hello=hello))
            try:
                await line.listening()
                await self._until_over(line, self._owner)
            finally:
                self._outbox = None
                party.detached()

    def _take(self, message: DispatcherMessage, party: Party, line: Line) -> None:
        if message.epoch < self.epoch:
            log.warning("epoch %d speaks, but %d was heard: not obeyed", message.epoch, self.epoch)
            line.connection.abort()
            return
        self.epoch = message.epoch
        for event in message.events:
            party.take(event)

    async def _until_over(self, line: Line, owner: Owner) -> None:
        """Until the stream is lost, or somebody else owns the pool, or Hello is to be said again."""
        reasons = [
            asyncio.create_task(reason, name=f"attach: {name}")
            for name, reason in (
                ("lost", line.lost.wait()),
                ("follow", self._follow(owner)),
                ("again", self._again.wait()),
            )
        ]
        try:
            done, _ = await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
            for reason in done:
                reason.result()
        finally:
            await call_off(reasons)

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
