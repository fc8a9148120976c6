"""The lease on a pool in memory, for tests: two dispatchers share one `MemoryLeases`."""

from collections.abc import Callable
from dataclasses import dataclass, field

from services.chassis import clock
from services.chassis.resp import RedisAwayError, RunChangedError
from services.dispatcher.core.epoch import next_epoch
from services.dispatcher.ports import Held, LeaseLostError
from services.pools.core.ownership import Owner


@dataclass(slots=True)
class MemoryLeases:
    """What Redis holds of leases. `run_id` gives the run it is in; with `away` it does not answer."""

    run_id: Callable[[], str]
    clock: Callable[[], float] = clock.monotonic
    owners: dict[str, tuple[Owner, float]] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    away: bool = False

    def owner(self, pool: str) -> Owner | None:
        """Who owns the pool now?"""
        owner, until = self.owners.get(pool, (None, 0.0))
        return owner if until > self.clock() else None


class MemoryPoolLease:
    """`PoolLease` on shared `MemoryLeases`."""

    def __init__(self, leases: MemoryLeases, pool: str, address: str, lease_s: float) -> None:
        self._leases = leases
        self._pool = pool
        self._address = address
        self._lease_s = lease_s

    async def acquire(self, floor: int) -> Held | Owner | None:
        """Take it if it is free."""
        self._check(None)
        if owner := self._leases.owner(self._pool):
            return owner
        epoch = next_epoch(self._leases.epochs.get(self._pool, 0), floor, clock.now())
        self._leases.epochs[self._pool] = epoch
        return self._write(Held(epoch, self._leases.run_id(), 0.0))

    async def renew(self, held: Held) -> Held:
        """Keep it."""
        self._check(held)
        if self._leases.owner(self._pool) != Owner(self._address, held.epoch):
            raise LeaseLostError(f"pool {self._pool} has another owner")
        return self._write(held)

    async def release(self, held: Held) -> None:
        """Give it up."""
        self._check(None)
        if self._leases.owner(self._pool) == Owner(self._address, held.epoch):
            del self._leases.owners[self._pool]

    async def confirm(self, held: Held) -> None:
        """The same run?"""
        self._check(held)

    def _write(self, held: Held) -> Held:
        until = self._leases.clock() + self._lease_s
        self._leases.owners[self._pool] = Owner(self._address, held.epoch), until
        return Held(held.epoch, held.run_id, until)

    def _check(self, held: Held | None) -> None:
        if self._leases.away:
            raise RedisAwayError("the leases in memory are away")
        if held and held.run_id != self._leases.run_id():
            raise RunChangedError(f"the leases in memory are in {self._leases.run_id()}, not in {held.run_id}")
