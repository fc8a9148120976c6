"""Tickets in Redis: the hash of a ticket to its owner, gone once taken (GETDEL) or after its time."""

from services.chassis.resp import Resp
from services.tasklog.adapters.redis_replies import checked, milliseconds


class RedisTicketStore:
    """`TicketStore` on the gateway's Redis connection."""

    def __init__(self, resp: Resp) -> None:
        self._resp = resp

    async def put(self, digest: bytes, owner: bytes, keep_s: float) -> None:
        """Keep the owner of a ticket."""
        (reply,) = await self._resp.pipe(("SET", _key(digest), owner, "PX", milliseconds(keep_s)))
        checked(reply)

    async def take(self, digest: bytes) -> bytes | None:
        """Its owner, once."""
        (owner,) = await self._resp.pipe(("GETDEL", _key(digest)))
        return checked(owner) or None


def _key(digest: bytes) -> str:
    return f"ticket:{digest.hex()}"
