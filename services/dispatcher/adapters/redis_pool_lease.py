"""The lease on a pool in Redis: a key that expires, and beside it the highest epoch ever given."""

from typing import Any

from services.chassis import clock
from services.chassis.resp import Command, Resp, RunChangedError
from services.dispatcher.core.epoch import next_epoch
from services.dispatcher.ports import Held, LeaseLostError
from services.pools.core.ownership import Owner, decode, encode, epoch_key, owner_key
from services.tasklog.adapters.redis_replies import checked

# Renewing and releasing compare and act in one step, which only a script can.
_RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


class RedisPoolLease:
    """`PoolLease` on a connected `Resp`. `address` is where the owner is spoken to."""

    def __init__(self, resp: Resp, pool: str, address: str, lease_s: float) -> None:
        self._resp = resp
        self._pool = pool
        self._address = address
        self._lease_s = lease_s

    async def acquire(self, floor: int) -> Held | Owner | None:
        """SET NX PX, then the epochs: whoever holds the key decides alone whether its epoch is high enough."""
        (reply,) = await self._resp.pipe(("GET", epoch_key(self._pool)))
        stored = int(checked(reply) or 0)
        held = Held(next_epoch(stored, floor, clock.now()), self._resp.run_id, clock.monotonic() + self._lease_s)
        value, key = self._value(held), owner_key(self._pool)
        taken, now_stored, found = await self._pipe(
            held,
            ("SET", key, value, "NX", "PX", self._milliseconds),
            ("GET", epoch_key(self._pool)),
            ("GET", key),
        )
        if not taken:
            return decode(found) if found else None
        if int(now_stored or 0) >= held.epoch:  # an owner came and went between the first look and the lease
            await self.release(held)
            return None
        await self._pipe(held, ("SET", epoch_key(self._pool), held.epoch))
        return held

    async def renew(self, held: Held) -> Held:
        """Compare, then extend."""
        until = clock.monotonic() + self._lease_s
        (kept,) = await self._pipe(
            held, ("EVAL", _RENEW, 1, owner_key(self._pool), self._value(held), self._milliseconds)
        )
        if not kept:
            raise LeaseLostError(f"pool {self._pool} has another owner")
        return Held(held.epoch, held.run_id, until)

    async def release(self, held: Held) -> None:
        """Compare, then delete."""
        (reply,) = await self._resp.pipe(("EVAL", _RELEASE, 1, owner_key(self._pool), self._value(held)))
        checked(reply)

    async def confirm(self, held: Held) -> None:
        """A connection talks to one run only: an answer on the present one settles it."""
        await self._pipe(held, ("PING",))

    def _value(self, held: Held) -> bytes:
        return encode(Owner(self._address, held.epoch))

    @property
    def _milliseconds(self) -> int:
        return round(self._lease_s * 1000)

    async def _pipe(self, held: Held, *commands: Command) -> list[Any]:
        replies = await self._resp.pipe(*commands, run_id=held.run_id)
        if self._resp.run_id != held.run_id:
            raise RunChangedError(f"Redis run {self._resp.run_id[:8]} is not {held.run_id[:8]}")
        return [checked(reply) for reply in replies]
