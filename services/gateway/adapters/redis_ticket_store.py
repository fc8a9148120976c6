"""Tickets in Redis: the hash of a ticket to its owner, gone once taken (GETDEL) or after its time."""

from services.chassis.resp import Resp


class RedisTicketStore:
    """`TicketStore` on the gateway's Redis connection."""

    def __init__(self, resp: Resp) -> None:
        self._resp = resp

    async def put(self, digest: bytes, owner: bytes, keep_s: float) -> None:
        """Keep the owner of a ticket."""
        await self._resp.call("SET", _key(digest), owner, "PX", int(keep_s * 1000))

    async def take(self, digest: bytes) -> bytes | None:
        """Its owner, once."""
        owner = await self._resp.call("GETDEL", _key(digest))
        return owner if isinstance(owner, bytes) else None


def _key(digest: bytes) -> str:
    return f"ticket:{digest.hex()}"
