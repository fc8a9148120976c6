"""The cache, asked once by all who ask the same at the same time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from millrace.cache.v1.cache_pb2 import LookupReply, LookupRequest
from services.chassis.clock import now
from services.chassis.errors import ProblemError

log = logging.getLogger(__name__)


class Twins:
    """Single flight inside one gateway: the first of a crowd asks the cache, the others share what it hears.

    If the first has to ask the engine, the others follow it; so they do when the cache is away or silent for `budget_s`.
    """

    def __init__(self, lookup: Callable[[LookupRequest, float], Awaitable[LookupReply]], budget_s: float) -> None:
        self._lookup = lookup
        self._budget_s = budget_s
        self._asking: dict[bytes, tuple[str, asyncio.Future[LookupReply | None]]] = {}

    async def ask(self, question: LookupRequest) -> LookupReply | None:
        """What the cache knows; None is a miss."""
        # All but who asks. Nobody joins a leader of a lower class, so the class is part of it.
        same = (
            question.scope.SerializeToString(deterministic=True) + bytes((question.priority_class,)) + question.request
        )
        if same in self._asking:
            first, heard = self._asking[same]
            found = await asyncio.shield(heard)
            return found if found is not None and not found.fence else LookupReply(leader=first)
        heard = asyncio.get_running_loop().create_future()
        self._asking[same] = question.task, heard
        found = None
        try:
            found = await self._lookup(question, now() + self._budget_s)
        except ProblemError as away:
            log.debug("cache: %s", away)
        finally:
            del self._asking[same]
            heard.set_result(found)
        return found
