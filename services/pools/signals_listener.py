"""A pool's work and the positions of its tasks, pushed by the pool's owner; cancels and watches told to it.

One stream per pool to whoever owns it now. The owner says something at least twice a second, so a stream that is silent for
longer than `SILENCE_S` belongs to a dispatcher that is stopped or cut off: the lease is looked up again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Final, Self

import grpc.aio

from millrace.dispatch.v1.dispatch_pb2 import PoolSignal, SignalsRequest, SignalsUpdate, TaskStatus
from millrace.dispatch.v1.dispatch_pb2_grpc import DispatchStub
from services.chassis.backoff import backoff
from services.chassis.clock import monotonic
from services.chassis.grpc_channel import channel
from services.chassis.resp import RedisAwayError
from services.pools.core.ownership import Owner
from services.pools.owner_lookup import OwnerLookup

log = logging.getLogger(__name__)

SILENCE_S: Final = 1.5
MAX_HINTS: Final = 10_000  # cancels kept while there is no owner; the truth is in Redis


class _Feed:
    """The stream of one pool; it comes back by itself, with everything that is watched."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.heard_at = float("-inf")
        self.watched: set[str] = set()
        self._cancels: list[str] = []
        self._watches: list[str] = []
        self._unwatches: list[str] = []
        self._wake = asyncio.Event()

    def cancel(self, task: str) -> None:
        if len(self._cancels) < MAX_HINTS:
            self._cancels.append(task)
        self._wake.set()

    def watch(self, task: str) -> None:
        self.watched.add(task)
        self._watches.append(task)
        self._wake.set()

    def unwatch(self, task: str) -> None:
        self.watched.discard(task)
        self._unwatches.append(task)
        self._wake.set()

    async def requests(self, address: str, boot: int) -> AsyncIterator[SignalsRequest]:
        """Who we are and what we watch, then what gathers between two messages."""
        self._watches, self._unwatches = [], []
        yield SignalsRequest(pool=self.pool, address=address, boot=boot, watches=self.watched)
        while True:
            if self._cancels or self._watches or self._unwatches:
                request = SignalsRequest(cancels=self._cancels, watches=self._watches, unwatches=self._unwatches)
                self._cancels, self._watches, self._unwatches = [], [], []
                yield request
            self._wake.clear()
            await self._wake.wait()


class SignalsListener:
    """Follows the owners of pools. Use as an async context manager; entering waits for nobody.

    `address` and `boot` are those of a gateway's frames server: its tasks' statuses are sent to it. Listeners that only want
    the work of the pools leave them out. `signals` holds the last signal of each pool, `age_s` says how old it is.
    """

    def __init__(self, lookup: OwnerLookup, address: str = "", boot: int = 0) -> None:
        self._lookup = lookup
        self._address = address
        self._boot = boot
        self._feeds: dict[str, _Feed] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.signals: dict[str, PoolSignal] = {}
        self.on_status: Callable[[TaskStatus], None] = lambda _: None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def follow(self, pools: Iterable[str]) -> None:
        """Follow exactly these pools from now on."""
        wanted = set(pools)
        for pool in self._tasks.keys() - wanted:
            self._tasks.pop(pool).cancel()
            self._feeds.pop(pool)
            self.signals.pop(pool, None)
        for pool in wanted - self._tasks.keys():
            feed = self._feeds[pool] = _Feed(pool)
            self._tasks[pool] = asyncio.create_task(self._run(feed), name=f"signals of {pool}")

    def age_s(self, pool: str) -> float:
        """Seconds since the pool's owner was last heard; infinite for one that never was."""
        feed = self._feeds.get(pool)
        return monotonic() - feed.heard_at if feed else float("inf")

    def cancel(self, pool: str, task: str) -> None:
        """Tell the owner that the task's cancel was written to Redis."""
        if feed := self._feeds.get(pool):
            feed.cancel(task)

    def watch(self, pool: str, task: str) -> None:
        """Ask for the task's statuses although its record names another gateway."""
        if feed := self._feeds.get(pool):
            feed.watch(task)

    def unwatch(self, pool: str, task: str) -> None:
        """No longer."""
        if feed := self._feeds.get(pool):
            feed.unwatch(task)

    async def _run(self, feed: _Feed) -> None:
        delays = backoff(0.05, 0.3)
        while True:
            try:
                owner = await self._lookup.find(feed.pool)
                if owner and await self._listen(feed, owner):
                    delays = backoff(0.05, 0.3)
            except (grpc.aio.AioRpcError, RedisAwayError, TimeoutError) as reason:
                log.debug("signals of %s: %s", feed.pool, reason)
            await asyncio.sleep(next(delays))

    async def _listen(self, feed: _Feed, owner: Owner) -> bool:
        """Read one stream to its end; was anything heard? Raises AioRpcError, TimeoutError."""
        heard = False
        loop = asyncio.get_running_loop()
        async with channel(owner.address) as ch:
            stream = DispatchStub(ch).Signals(feed.requests(self._address, self._boot))  # type: ignore[no-untyped-call]
            try:
                async with asyncio.timeout(SILENCE_S) as patience:
                    async for update in stream:
                        patience.reschedule(loop.time() + SILENCE_S)
                        heard = True
                        self._take(feed, update)
            finally:
                stream.cancel()
        return heard

    def _take(self, feed: _Feed, update: SignalsUpdate) -> None:
        feed.heard_at = monotonic()
        if update.HasField("signal"):
            self.signals[feed.pool] = update.signal
        for status in update.statuses:
            self.on_status(status)
