"""How the cache is spoken to: `millrace.cache.v1.Cache`."""

import secrets
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from millrace.batch.v1.batch_pb2 import Item
from millrace.cache.v1 import cache_pb2 as pb
from services.cache.core.flight import Flight, Join, Lead
from services.cache.core.lookup import Ask, Found, Hit, answers, questions
from services.cache.core.scope import KEY_BYTES, Scope, answer_key
from services.cache.ports import AnswerCache, Ending
from services.cache.settings import CacheSettings
from services.chassis.batched_server import in_order, whole
from services.chassis.clock import monotonic, now
from services.chassis.errors import ErrorCode, Problem
from services.chassis.framed_server import Called
from services.chassis.framing import method
from services.chassis.metrics import cache_batch_seconds, cache_lookups, cache_stores
from services.chassis.resp import RedisAwayError

# Only these answers are whole. A cancelled or failed one, or one whose stream broke, is never stored.
COMPLETE: Final = frozenset({"stop", "length"})


class CacheServicer:
    """Answers each batch with one pipeline to the store."""

    def __init__(self, cache: AnswerCache, settings: CacheSettings) -> None:
        self._cache = cache
        self._settings = settings
        self._found = {kind: cache_lookups.labels(found=name) for kind, name in _FOUND_NAMES.items()}
        self._stored = {
            result: cache_stores.labels(result=name) for result, name in ((True, "stored"), (False, "dropped"))
        }

    @property
    def methods(self) -> Mapping[str, Called]:
        """What a batched server serves."""
        return {method(pb, "Cache", "Lookup"): whole(self.look), method(pb, "Cache", "Store"): whole(self.store)}

    async def look(self, items: Sequence[Item]) -> list[bytes | Problem]:
        """LookupRequest to LookupReply, in order; any error is a miss to the caller."""
        began, instant = monotonic(), now()
        asked = [self._ask(item) for item in items]
        asks = [ask for ask in asked if isinstance(ask, Ask)]
        asking = questions(asks)
        try:
            found = answers(asks, asking, await self._cache.look(asking, instant))
        except RedisAwayError as reason:
            return in_order(asked, repeat(Problem(ErrorCode.UNAVAILABLE, f"answers cannot be read: {reason}")))
        for what in found:
            self._found[type(what)].inc()
        replies = (_reply(ask.key, what, instant).SerializeToString() for ask, what in zip(asks, found, strict=True))
        answered = in_order(asked, replies)
        cache_batch_seconds.observe(monotonic() - began)
        return answered

    async def store(self, items: Sequence[Item]) -> list[bytes | Problem]:
        """StoreRequest to StoreReply, in order."""
        asked = [self._ending(item) for item in items]
        endings = [ending for ending in asked if isinstance(ending, Ending)]
        try:
            stored = await self._cache.end(endings, now())
        except RedisAwayError as reason:
            return in_order(asked, repeat(Problem(ErrorCode.UNAVAILABLE, f"answers cannot be stored: {reason}")))
        for done in stored:
            self._stored[done].inc()
        return in_order(asked, (pb.StoreReply(stored=done).SerializeToString() for done in stored))

    def _ask(self, item: Item) -> Ask | Problem:
        try:
            request = pb.LookupRequest.FromString(item.payload)
            scope = Scope(
                tenant=request.scope.tenant,
                model=request.scope.model,
                model_revision=request.scope.model_revision,
            )
        except (DecodeError, ValueError) as wrong:
            return Problem(ErrorCode.INVALID_REQUEST, f"not a LookupRequest: {wrong}")
        if not request.task.isalnum() or not request.priority_class:
            return Problem(ErrorCode.INVALID_REQUEST, "a lookup needs a task and its class")
        lead_s = min(_seconds(request.lead_for) or self._settings.lead_s, self._settings.lead_s)
        asker = Flight(int(request.priority_class), secrets.token_hex(8), request.task)
        return Ask(answer_key(scope, request.request), asker, lead_s)

    def _ending(self, item: Item) -> Ending | Problem:
        try:
            request = pb.StoreRequest.FromString(item.payload)
        except DecodeError:
            return Problem(ErrorCode.INVALID_REQUEST, "not a StoreRequest")
        if len(request.key) != KEY_BYTES or " " in request.fence:
            return Problem(ErrorCode.INVALID_REQUEST, "key and fence are those of the LookupReply")
        whole = request.HasField("answer") and request.answer.finish_reason in COMPLETE
        answer = request.answer.SerializeToString() if whole else None
        return Ending(request.key, request.fence, answer, _seconds(request.keep) or self._settings.keep_s)


_FOUND_NAMES: Final[dict[type[Found], str]] = {Hit: "hit", Join: "joined", Lead: "miss"}


def _reply(key: bytes, found: Found, instant: float) -> pb.LookupReply:
    match found:
        case Hit(raw, stored_at):
            answer = pb.Answer.FromString(raw)
            answer.age_s = max(instant - stored_at, 0.0)
            return pb.LookupReply(key=key, answer=answer)
        case Join(leader):
            return pb.LookupReply(key=key, leader=leader)
        case Lead(fence):
            return pb.LookupReply(key=key, fence=fence)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
