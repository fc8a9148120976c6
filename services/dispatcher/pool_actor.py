"""One pool in one dispatcher process: standing by until nobody owns it, owning it until that ends, and again."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Final

from millrace.config.v1.config_pb2 import Pool
from services.dispatcher.core.work import ServiceTimes
from services.dispatcher.ownership import Pace, World
from services.dispatcher.pool_owner import EpochOutrankedError, PoolOwner
from services.dispatcher.ports import (
    Held,
    KafkaAwayError,
    LeaseLostError,
    NoCommittedOffsetError,
    RedisAwayError,
    RunChangedError,
)
from services.pools.core.ownership import Owner

log = logging.getLogger(__name__)

HOPELESS_S: Final = 5.0  # between two tries when a person has to do something first


class PoolActor:
    """`owner` is set while the pool is owned here; `elsewhere` is who owned it when last looked. `configure` it before `run`."""

    def __init__(self, world: World, pace: Pace, poll_s: float, read_ahead: int) -> None:
        self.owner: PoolOwner | None = None
        self.elsewhere: Owner | None = None
        self._config = Pool()
        self._weights: Mapping[str, float] = {}
        self._world = world
        self._pace = pace
        self._poll_s = poll_s
        self._read_ahead = read_ahead
        self._times = ServiceTimes()
        self._floor = 0  # the highest epoch that a worker is known to have obeyed

    @property
    def pool(self) -> str:
        """Its name."""
        return self._config.name

    def configure(self, config: Pool, weights: Mapping[str, float]) -> None:
        """Take a new configuration."""
        self._config, self._weights = config, weights
        if self.owner:
            self.owner.configure(config, weights)

    async def run(self) -> None:
        """Stand by and own, until cancelled; then leave politely."""
        while True:
            held = await self._stand_by()
            log.info("pool %s: owned here, epoch %d", self.pool, held.epoch)
            wait_s = await self._own(held)
            log.info("pool %s: no longer owned here", self.pool)
            await asyncio.sleep(wait_s)

    async def _stand_by(self) -> Held:
        while True:
            try:
                found = await self._world.lease.acquire(self._floor)
            except (RedisAwayError, RunChangedError) as reason:
                log.debug("pool %s: %s", self.pool, reason)
            else:
                if isinstance(found, Held):
                    self.elsewhere = None
                    return found
                self.elsewhere = found
            await asyncio.sleep(self._poll_s)

    async def _own(self, held: Held) -> float:
        """Own the pool; returns how long to wait before the next try."""
        owner = self.owner = PoolOwner(
            self._config, self._world, held, pace=self._pace, read_ahead=self._read_ahead, times=self._times
        )
        owner.configure(self._config, self._weights)
        wait_s = 0.0
        try:
            await owner.run()
        except asyncio.CancelledError:
            self.owner = None
            await asyncio.shield(self._leave(owner))
            raise
        except LeaseLostError as reason:
            log.warning("%s", reason)
        except RunChangedError as reason:
            log.warning("pool %s is given up and taken again: %s", self.pool, reason)
        except EpochOutrankedError as reason:
            self._floor = reason.epoch
            log.warning("pool %s is given up and taken again: %s", self.pool, reason)
        except NoCommittedOffsetError as reason:
            log.error("pool %s cannot be owned: %s", self.pool, reason)  # noqa: TRY400 - the sentence says it all
            wait_s = HOPELESS_S
        except KafkaAwayError as reason:
            log.warning("pool %s: %s", self.pool, reason)
            wait_s = self._poll_s
        except Exception:
            log.exception("pool %s: its owner failed", self.pool)
            wait_s = 1.0
        self.owner = None
        with contextlib.suppress(RedisAwayError, RunChangedError):
            await self._world.lease.release(held)
        return wait_s

    async def _leave(self, owner: PoolOwner) -> None:
        with contextlib.suppress(RedisAwayError, RunChangedError, KafkaAwayError):
            await owner.leave()
