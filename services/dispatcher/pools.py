"""The pools of the configuration, one actor each."""

import asyncio
import logging
from collections.abc import Callable

from millrace.config.v1.config_pb2 import Snapshot
from services.chassis.background import Background
from services.dispatcher.pool_actor import PoolActor

log = logging.getLogger(__name__)


class Pools:
    """Starts an actor for each pool that the configuration has, and stops those it has no more. `make` makes one."""

    def __init__(self, make: Callable[[str], PoolActor]) -> None:
        self._make = make
        self._running: dict[str, asyncio.Task[None]] = {}
        self._leaving = Background()
        self._open = True
        self.actors: dict[str, PoolActor] = {}

    def configure(self, snapshot: Snapshot) -> None:
        """Follow a new configuration."""
        if not self._open:
            return
        weights = {tenant.name: tenant.weight or 1.0 for tenant in snapshot.tenants}
        configs = {pool.name: pool for pool in snapshot.pools}
        for name in self.actors.keys() - configs.keys():
            log.info("pool %s is not configured any more", name)
            self._stop(name)
        for name, config in configs.items():
            actor = self.actors.get(name)
            if actor is None:
                actor = self.actors[name] = self._make(name)
                actor.configure(config, weights)
                self._running[name] = asyncio.create_task(actor.run(), name=f"pool {name}")
            else:
                actor.configure(config, weights)

    async def leave(self) -> None:
        """Hand all pools over."""
        self._open = False
        for name in tuple(self.actors):
            self._stop(name)
        await self._leaving.over()

    def _stop(self, name: str) -> None:
        task = self._running.pop(name)
        task.cancel()
        self._leaving.keep(task)
        del self.actors[name]
