"""The lease on a pool, in memory and on a real Redis."""

import asyncio
import uuid

import pytest

from services.chassis.clock import monotonic, now
from services.chassis.resp import Resp
from services.dispatcher.adapters.memory_pool_lease import MemoryLeases, MemoryPoolLease
from services.dispatcher.adapters.redis_pool_lease import RedisPoolLease
from services.dispatcher.ports import Held, LeaseLostError, RedisAwayError, RunChangedError
from services.pools.core.ownership import Owner, owner_key
from services.pools.owner_lookup import OwnerLookup
from tests.model.forgetful_redis import forgetful_redis

LEASE_S = 0.6


class InMemory:
    """Two candidates for one pool, and Redis's bad days."""

    def __init__(self):
        self.run = "run 1"
        self.leases = MemoryLeases(lambda: self.run)

    def candidate(self, address):
        return MemoryPoolLease(self.leases, "pool", address, LEASE_S)

    async def owner(self):
        return self.leases.owner("pool")

    async def forget_epoch(self):
        self.leases.epochs.clear()

    async def take_away(self):
        self.leases.owners.clear()

    async def restart(self):
        self.run = "run 2"

    async def stop(self):
        self.leases.away = True

    refuse = stop


class OnRedis:
    """The same on a Redis of the test's own."""

    def __init__(self, server, resp):
        self.server, self.resp, self.pool = server, resp, uuid.uuid4().hex

    def candidate(self, address):
        return RedisPoolLease(self.resp, self.pool, address, LEASE_S)

    async def owner(self):
        return await OwnerLookup(self.resp).find(self.pool)

    async def forget_epoch(self):
        await self.resp.call("DEL", f"pool:{self.pool}:epoch")

    async def take_away(self):
        await self.resp.call("DEL", owner_key(self.pool))

    async def restart(self):
        before = self.resp.run_id
        await asyncio.to_thread(self.server.restart, None)
        while self.resp.run_id == before:
            await asyncio.sleep(0.01)
        await self.resp.wait_connected(5)

    async def stop(self):
        await self.resp.__aexit__(None, None, None)

    async def refuse(self):
        await self.resp.call("CONFIG", "SET", "min-replicas-to-write", 1)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
async def world(request, tmp_path):
    if request.param == "memory":
        yield InMemory()
        return
    with forgetful_redis(tmp_path) as server:
        async with Resp(server.url) as resp:
            await resp.wait_connected(5)
            yield OnRedis(server, resp)


async def test_one_of_two_gets_the_pool_and_the_other_learns_who(world):
    """`acquire` gives the lease to the first and the owner's address to the second."""
    first, second = world.candidate("a:1"), world.candidate("b:1")
    held = await first.acquire(0)
    assert isinstance(held, Held)
    assert held.epoch >= int(now() * 1000) - 1000
    assert await second.acquire(0) == Owner("a:1", held.epoch)
    assert await world.owner() == Owner("a:1", held.epoch)


async def test_a_lease_that_is_not_renewed_goes_to_the_standby_under_a_higher_epoch(world):
    """After `lease_s` of silence the next one owns the pool; the old owner is told so, and its clock told it before."""
    first, second = world.candidate("a:1"), world.candidate("b:1")
    held = await first.acquire(0)
    while not isinstance(taken := await second.acquire(0), Held):
        await asyncio.sleep(0.02)
    assert held.until <= monotonic()
    assert taken.epoch > held.epoch
    with pytest.raises(LeaseLostError):
        await first.renew(held)
    await first.release(held)  # not ours any more: changes nothing
    assert await world.owner() == Owner("b:1", taken.epoch)


async def test_a_renewed_lease_is_kept(world):
    """Renewing extends it, counted from before the write."""
    lease = world.candidate("a:1")
    held = await lease.acquire(0)
    for _ in range(4):
        await asyncio.sleep(LEASE_S / 2)
        before = monotonic()
        held = await lease.renew(held)
        assert held.until >= before + LEASE_S * 0.9
    assert await world.owner() == Owner("a:1", held.epoch)


async def test_a_released_lease_is_free_at_once(world):
    """Polite owners are replaced without waiting."""
    first, second = world.candidate("a:1"), world.candidate("b:1")
    held = await first.acquire(0)
    await first.release(held)
    assert await world.owner() is None
    assert isinstance(await second.acquire(0), Held)


async def test_epochs_only_grow_whatever_was_forgotten(world):
    """Above the stored epoch and above the floor that workers reported, also when Redis forgot."""
    lease = world.candidate("a:1")
    held = await lease.acquire(0)
    await lease.release(held)
    again = await lease.acquire(held.epoch + 10**6)
    assert again.epoch == held.epoch + 10**6 + 1
    await lease.release(again)
    third = await lease.acquire(0)
    assert third.epoch == again.epoch + 1
    await lease.release(third)
    await world.forget_epoch()
    assert (await lease.acquire(third.epoch)).epoch == third.epoch + 1


async def test_another_redis_run_ends_the_lease(world):
    """Renewing and confirming under another run id raise RunChangedError, though the key may still be there."""
    lease = world.candidate("a:1")
    held = await lease.acquire(0)
    await lease.confirm(held)
    await world.restart()
    with pytest.raises(RunChangedError):
        await lease.confirm(held)
    with pytest.raises(RunChangedError):
        await lease.renew(held)


async def test_a_redis_that_is_away_says_nothing_about_the_lease(world):
    """Every call raises RedisAwayError: only the clock decides."""
    lease = world.candidate("a:1")
    held = await lease.acquire(0)
    await world.stop()
    for call in (lease.renew(held), lease.confirm(held), lease.acquire(0)):
        with pytest.raises(RedisAwayError):
            await call


async def test_a_redis_that_refuses_writes_is_away(world):
    """Full, or unable to write its file: every call that writes raises RedisAwayError, which owners and standbys outlive."""
    lease = world.candidate("a:1")
    held = await lease.acquire(0)
    await world.refuse()
    for call in (lease.renew(held), lease.release(held), lease.acquire(0)):
        with pytest.raises(RedisAwayError):
            await call


async def test_a_lease_that_was_taken_away_is_lost(world):
    """A key that vanished is not made again by renewing."""
    lease = world.candidate("a:1")
    held = await lease.acquire(0)
    await world.take_away()
    with pytest.raises(LeaseLostError):
        await lease.renew(held)
