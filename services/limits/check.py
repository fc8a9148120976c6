"""Limits in the words of `millrace.limits.v1`, for those who ask and those who answer."""

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from millrace.config.v1 import config_pb2 as config
from millrace.limits.v1 import limits_pb2 as pb
from services.limits.core.gcra import Limit
from services.limits.core.request import Bucket, Decision


def request_for(tenant: config.Tenant, api_key: str, tokens: float, requests: float = 1.0) -> pb.CheckRequest:
    """What a request of this tenant takes: from the key first, then from the tenant as a whole. Empty = unlimited.

    All names carry the tenant in braces: one hash slot, so that taking from all or none stays one step in Redis Cluster.
    """
    limits, tag = tenant.limits, f"{{{tenant.name}}}"
    rows = (
        ("key_requests", f"{tag}:key:{api_key}:requests", requests),
        ("key_tokens", f"{tag}:key:{api_key}:tokens", tokens),
        ("tenant_requests", f"{tag}:requests", requests),
        ("tenant_tokens", f"{tag}:tokens", tokens),
    )
    buckets = []
    for field, name, cost in rows:
        if limits.HasField(field):
            limit: config.Limit = getattr(limits, field)
            buckets.append(pb.Bucket(name=name, rate=limit.rate, period=limit.period, burst=limit.burst, cost=cost))
    return pb.CheckRequest(buckets=buckets)


def buckets_of(request: pb.CheckRequest) -> list[Bucket] | str:
    """The buckets asked for, or the rule that the request breaks.

    >>> buckets_of(pb.CheckRequest(buckets=[pb.Bucket(name="a")]))
    'buckets[0].rate must be above 0'
    """
    buckets = []
    for index, bucket in enumerate(request.buckets):
        period_s = bucket.period.seconds + bucket.period.nanos / 1e9
        for wrong, rule in (
            (not bucket.name, "name is missing"),
            (not 0 < bucket.rate < float("inf"), "rate must be above 0"),
            (not period_s > 0, "period must be above 0"),
            (not 1 <= bucket.burst < float("inf"), "burst must be at least 1"),
            (not 0 <= bucket.cost < float("inf"), "cost must not be negative"),
        ):
            if wrong:
                return f"buckets[{index}].{rule}"
        buckets.append(Bucket(bucket.name, Limit(bucket.rate, period_s, bucket.burst), bucket.cost))
    return buckets


def reply_of(buckets: Sequence[Bucket], decision: Decision) -> pb.CheckReply:
    """The decision as an answer."""
    reply = pb.CheckReply(
        allowed=decision.allowed,
        states=[
            pb.BucketState(
                name=bucket.name,
                limit=bucket.limit.burst,
                remaining=verdict.remaining,
                reset=_duration(verdict.reset_s),
            )
            for bucket, verdict in zip(buckets, decision.verdicts, strict=True)
        ],
    )
    if decision.refused_by is not None:
        reply.refused_by = buckets[decision.refused_by].name
        retry_after = decision.verdicts[decision.refused_by].retry_after_s
        if retry_after is not None:
            reply.retry_after.CopyFrom(_duration(retry_after))
    return reply


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=min(int((seconds - whole) * 1e9), 999_999_999))
