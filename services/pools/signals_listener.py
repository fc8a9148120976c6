"""A pool's work and the positions of its tasks, pushed by the pool's owner; cancels and watches told to it.

One stream per pool to whoever owns it now. The owner says something at least twice a second, so a stream that is silent for
longer than `SILENCE_S` belongs to a dispatcher that is stopped or cut off: the lease is looked up again.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Self

from millrace.dispatch.v1 import dispatch_pb2
from millrace.dispatch.v1.dispatch_pb2 import PoolSignal, SignalsRequest, SignalsUpdate, TaskStatus
from services.chassis.background import call_off
from services.chassis.backoff import backoff
from services.chassis.clock import monotonic
from services.chassis.framed_client import Line, dial
from services.chassis.framing import method
from services.chassis.gather import Gather
from services.chassis.resp import RedisAwayError
from services.pools.core.ownership import Owner
from services.pools.owner_lookup import OwnerLookup

log = logging.getLogger(__name__)

SIGNALS: Final = method(dispatch_pb2, "Dispatch", "Signals")
SILENCE_S: Final = 1.5
MAX_HINTS: Final = 10_000  # cancels kept while there is no owner; the truth is in Redis


class _Feed:
    """The stream of one pool; it comes back by itself, with everything that is watched."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.heard_at = float("-inf")
        self._watched: Counter[str] = Counter()  # by how many here
        self._unheard: list[str] = []  # cancels for the next owner
        self._line: Line | None = None
        self._outbox: Gather[tuple[str, str]] = Gather(self._send)

    def cancel(self, task: str) -> None:
        self._outbox.put(("cancels", task))

    def watch(self, task: str) -> None:
        self._watched[task] += 1
        self._outbox.put(("watches", task))

    def unwatch(self, task: str) -> None:
        self._watched[task] -= 1
        if self._watched[task] <= 0:  # below 0: it was watched before the pool went and came back
            del self._watched[task]
            self._outbox.put(("unwatches", task))

    def begin(self, line: Line, address: str, boot: int) -> None:
        """Say who we are and what we watch; from now on what is said goes there."""
        self._line = line
        cancels, self._unheard = self._unheard, []
        first = SignalsRequest(pool=self.pool, address=address, boot=boot, watches=self._watched, cancels=cancels)
        line.send(first.SerializeToString())

    def end(self) -> None:
        """Nobody listens."""
        self._line = None

    def _send(self, said: list[tuple[str, str]]) -> None:
        request = SignalsRequest()
        for what, task in said:
            # The owner takes all watches before the unwatches, so of them it hears only what still holds.
            if what == "cancels" or (what == "watches") == (task in self._watched):
                getattr(request, what).append(task)
        if self._line:
            self._line.send(request.SerializeToString())
        else:
            self._unheard += request.cancels[: MAX_HINTS - len(self._unheard)]


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
        self.on_signal: Callable[[str], None] = lambda _: None  # told the pool of each change
        self.epochs: dict[str, int] = {}  # under which its owner spoke last
        self.on_status: Callable[[TaskStatus], None] = lambda _: None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        await call_off(tasks)

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
        """Ask for the task's statuses although its record names another gateway; `unwatch` takes one `watch` back."""
        if feed := self._feeds.get(pool):
            feed.watch(task)

    def unwatch(self, pool: str, task: str) -> None:
        """One who asked no longer does; for the others the task stays watched."""
        if feed := self._feeds.get(pool):
            feed.unwatch(task)

    async def _run(self, feed: _Feed) -> None:
        delays = backoff(0.05, 0.3)
        while True:
            try:
                if owner := await self._lookup.find(feed.pool):
                    await self._listen(feed, owner)
                    delays = backoff(0.05, 0.3)
            except (OSError, RedisAwayError, TimeoutError) as reason:
                log.debug("signals of %s: %s", feed.pool, reason)
            await asyncio.sleep(next(delays))

    async def _listen(self, feed: _Feed, owner: Owner) -> None:
        """Listen until the stream is over. Raises OSError, TimeoutError."""

        def take(message: bytes) -> None:
            self._take(feed, SignalsUpdate.FromString(message))

        async with dial(owner.address, SIGNALS, take, within_s=SILENCE_S) as line:
            feed.begin(line, self._address, self._boot)
            try:
                await line.listening()
                await line.over(SILENCE_S)
            finally:
                feed.end()

    def _take(self, feed: _Feed, update: SignalsUpdate) -> None:
        feed.heard_at = monotonic()
        if update.HasField("signal"):
            self.signals[feed.pool], self.epochs[feed.pool] = update.signal, update.epoch
            self.on_signal(feed.pool)
        for status in update.statuses:
            self.on_status(status)
