"""Which gateways live, and which of them read a task, as Redis knows it."""

import time

from services.chassis.resp import Resp
from services.tasklog.adapters.redis_replies import checked
from services.tasklog.core.keys import CANCEL, readers_key

GATEWAYS_KEY = "gateways"
LIVE_S = 5.0  # a gateway that did not say so for this long does not count


class RedisPresence:
    """`Presence` of the gateway with this boot id."""

    def __init__(self, resp: Resp, boot: int) -> None:
        self._resp = resp
        self._boot = boot

    async def readers(self, task: str) -> int:
        """Gateways in which a reader attached to the task."""
        key = readers_key(task)
        count, cancel = await self._resp.pipe(("HLEN", key), ("HEXISTS", key, CANCEL))
        return int(checked(count)) - int(checked(cancel))

    async def gateways(self) -> int:
        """Say that this gateway lives; how many do?"""
        at = time.time()
        *_, count = await self._resp.pipe(
            ("ZADD", GATEWAYS_KEY, at, self._boot),
            ("ZREMRANGEBYSCORE", GATEWAYS_KEY, "-inf", at - LIVE_S),
            ("ZCARD", GATEWAYS_KEY),
        )
        return int(checked(count))
