"""All WorkerPools: a keeper for each, stepped once a second and at once when it matters."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from millrace_operator.core.selection import Verdict
from millrace_operator.pool_keeper import PoolKeeper, World
from millrace_operator.ports import ApiError
from millrace_operator.store import Key
from services.chassis.background import call_off
from services.chassis.clock import monotonic, now
from services.chassis.metrics import operator_replicas, operator_step_seconds, operator_steps

log = logging.getLogger(__name__)

TICK_S: Final = 1.0


class Pools:
    """`run` until cancelled. `leading`: may this process act? A standby only looks."""

    def __init__(self, world: World, leading: Callable[[], bool]) -> None:
        self._world = world
        self._leading = leading
        self._led = False
        self._keepers: dict[Key, PoolKeeper] = {}
        self._due: set[Key] = set()
        self._running: dict[Key, asyncio.Task[None]] = {}  # one slow pool holds up no other
        self._refused: dict[Key, str] = {}
        self._wake = asyncio.Event()
        self.stepped_at = monotonic()
        world.store.subscribe(("WorkerPool",), lambda _, key: self.wake(key))

    def wake(self, key: Key) -> None:
        """Look at a pool at once."""
        self._due.add(key)
        self._wake.set()

    def signalled(self, pool: str) -> None:
        """A dispatcher said something. Urgent only for a pool without workers: the next tick is soon."""
        for key in self._world.store.all("WorkerPool"):
            if key[1] == pool and not self._has_workers(key):
                self.wake(key)

    def verdict(self, key: Key, verdict: Verdict) -> None:
        """What the snapshot says of a pool."""
        self._keeper(key).report.verdict = verdict

    def ready(self, pool: str) -> bool:
        """Does it take tasks, or would it start a worker for one? By the last look."""
        return any(keeper.report.ready for key, keeper in self._keepers.items() if key[1] == pool)

    def _keeper(self, key: Key) -> PoolKeeper:
        return self._keepers.setdefault(key, PoolKeeper(self._world, key))

    async def run(self) -> None:
        """Step while leading. When this ends no step runs any more."""
        try:
            await self._run()
        finally:
            await call_off(self._running.values())

    async def _run(self) -> None:
        await self._world.store.listed.wait()
        ticked_at = float("-inf")
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(ticked_at + TICK_S - monotonic(), 0.0)):
                    await self._wake.wait()
            if monotonic() - ticked_at >= TICK_S:
                ticked_at = monotonic()
                self._due |= self._world.store.all("WorkerPool").keys()
            self._wake.clear()
            if self._leading() != self._led:
                self._led = not self._led
                await self._begin_anew()
            if self._led:
                for key in self._due - self._running.keys():
                    self._due.discard(key)
                    self._running[key] = asyncio.create_task(self._step(key), name=f"pool {key[1]}")
                    self._running[key].add_done_callback(partial(self._stepped, key))
            else:
                self._due.clear()
            self.stepped_at = monotonic()

    async def _begin_anew(self) -> None:
        """Another one may have led: what it decided, learned and told stands in the cluster, newer than all that is known here."""
        await call_off(self._running.values())
        operator_replicas.clear()
        before, self._keepers = self._keepers, {}
        for key, keeper in before.items():
            self._keeper(key).report.verdict = keeper.report.verdict

    def _stepped(self, key: Key, _: asyncio.Task[None]) -> None:
        del self._running[key]
        if key in self._due:
            self._wake.set()

    async def _step(self, key: Key) -> None:
        if self._world.store.get("WorkerPool", key) is None:
            self._keepers.pop(key, None)
            self._refused.pop(key, None)
            for state in ("desired", "ready"):
                with contextlib.suppress(KeyError):
                    operator_replicas.remove(key[1], state)
            return
        began = monotonic()
        try:
            await self._keeper(key).step(now())
        except ApiError as refused:
            operator_steps.labels("refused").inc()
            if self._refused.get(key) != str(refused):  # it is tried again each second, and said once
                log.warning("pool %s: %s", key[1], refused)
            self._refused[key] = str(refused)
        except Exception:
            operator_steps.labels("failed").inc()
            log.exception("pool %s", key[1])
        else:
            operator_steps.labels("done").inc()
            self._refused.pop(key, None)
        operator_step_seconds.observe(monotonic() - began)

    def _has_workers(self, key: Key) -> bool:
        pool = self._world.store.get("WorkerPool", key)
        return bool(pool and pool["spec"].get("replicas", 1))
