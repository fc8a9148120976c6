"""How the rate limiter is spoken to: `millrace.limits.v1.RateLimiter`."""

from collections.abc import Mapping, Sequence
from itertools import repeat

from google.protobuf.message import DecodeError

from millrace.batch.v1.batch_pb2 import Item
from millrace.limits.v1 import limits_pb2 as pb
from services.chassis.batched_server import in_order, whole
from services.chassis.clock import monotonic
from services.chassis.errors import ErrorCode, Problem
from services.chassis.framed_server import Called
from services.chassis.framing import method
from services.chassis.metrics import limiter_batch_seconds, limiter_decisions
from services.chassis.resp import RedisAwayError
from services.limits.check import buckets_of, reply_of
from services.limits.core.request import Bucket
from services.ratelimiter.ports import BucketStore


class RateLimiterServicer:
    """Answers each batch with one call to the store."""

    def __init__(self, store: BucketStore) -> None:
        self._store = store
        self._allowed = limiter_decisions.labels(verdict="allowed")
        self._limited = limiter_decisions.labels(verdict="limited")

    @property
    def methods(self) -> Mapping[str, Called]:
        """What a batched server serves."""
        return {method(pb, "RateLimiter", "Check"): whole(self.decide)}

    async def decide(self, items: Sequence[Item]) -> list[bytes | Problem]:
        """CheckRequest to CheckReply, in order; `invalid_request` names the field, `unavailable` = Redis is away."""
        began = monotonic()
        asked = [_asked(item) for item in items]
        valid = [buckets for buckets in asked if not isinstance(buckets, Problem)]
        try:
            decisions = await self._store.decide(valid)
        except RedisAwayError as reason:
            return in_order(asked, repeat(Problem(ErrorCode.UNAVAILABLE, f"the limits cannot be read: {reason}")))
        for decision in decisions:
            (self._allowed if decision.allowed else self._limited).inc()
        replies = (reply_of(buckets, said).SerializeToString() for buckets, said in zip(valid, decisions, strict=True))
        answers = in_order(asked, replies)
        limiter_batch_seconds.observe(monotonic() - began)
        return answers


def _asked(item: Item) -> list[Bucket] | Problem:
    try:
        buckets = buckets_of(pb.CheckRequest.FromString(item.payload))
    except DecodeError:
        return Problem(ErrorCode.INVALID_REQUEST, "not a CheckRequest")
    return Problem(ErrorCode.INVALID_REQUEST, buckets) if isinstance(buckets, str) else buckets
