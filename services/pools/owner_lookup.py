"""Who owns a pool now?"""

from services.chassis.resp import Resp
from services.pools.core.ownership import Owner, decode, owner_key


class OwnerLookup:
    """Reads the pool's lease. One small Redis read; ask again whenever an owner does not answer."""

    def __init__(self, resp: Resp) -> None:
        self._resp = resp

    async def find(self, pool: str) -> Owner | None:
        """The owner, or None between two owners. Raises RedisAwayError."""
        value = await self._resp.call("GET", owner_key(pool))
        return decode(value) if value else None
