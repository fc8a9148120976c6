"""Limits in the words of `millrace.limits.v1`, for those who ask and those who answer."""

import math
from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration

from millrace.config.v1 import config_pb2 as config
from millrace.limits.v1 import limits_pb2 as pb
from services.limits.core.gcra import RESOLUTION_S, Limit
from services.limits.core.request import Bucket, Decision


def request_for(tenant: config.Tenant, api_key: str, tokens: float, requests: float = 1.0) -> pb.CheckRequest:
    """What a request of this tenant takes: from the key first, then from the tenant as a whole. Empty = unlimited.

    All names carry the tenant in braces: one hash slot, so that taking from all or none stays one step in Redis Cluster.
    """
    request = pb.CheckRequest()
    request.CopyFrom(_buckets_for(tenant.name, api_key, tenant.limits.SerializeToString(deterministic=True)))
    for bucket in request.buckets:
        bucket.cost = tokens if bucket.name.endswith(":tokens") else requests
    return request


@lru_cache(maxsize=4096)  # of one key the same for every request
def _buckets_for(tenant: str, api_key: str, packed: bytes) -> pb.CheckRequest:
    limits, tag = config.Limits.FromString(packed), f"{{{tenant}}}"
    rows = (
        ("key_requests", f"{tag}:key:{api_key}:requests"),
        ("key_tokens", f"{tag}:key:{api_key}:tokens"),
        ("tenant_requests", f"{tag}:requests"),
        ("tenant_tokens", f"{tag}:tokens"),
    )
    buckets = []
    for field, name in rows:
        if limits.HasField(field):
            limit: config.Limit = getattr(limits, field)
            buckets.append(pb.Bucket(name=name, rate=limit.rate, period=limit.period, burst=limit.burst))
    return pb.CheckRequest(buckets=buckets)


def buckets_of(request: pb.CheckRequest) -> list[Bucket] | str:
    """The buckets asked for, or the rule that the request breaks.

    >>> buckets_of(pb.CheckRequest(buckets=[pb.Bucket(name="a")]))
    'buckets[0].rate must be above 0'
    """
    buckets = []
    for index, asked in enumerate(request.buckets):
        period_s = asked.period.seconds + asked.period.nanos / 1e9
        bucket = Bucket(asked.name, Limit(asked.rate, period_s, asked.burst), asked.cost)
        if rule := _broken_rule(bucket):
            return f"buckets[{index}].{rule}"
        buckets.append(bucket)
    return buckets


def _broken_rule(bucket: Bucket) -> str:
    limit = bucket.limit
    if not bucket.name:
        return "name is missing"
    if not 0 < limit.rate < math.inf:
        return "rate must be above 0"
    if not limit.period_s > 0:
        return "period must be above 0"
    if not 1 <= limit.burst < math.inf:
        return "burst must be at least 1"
    if not 0 <= bucket.cost < math.inf:
        return "cost must not be negative"
    return ""


def reply_of(buckets: Sequence[Bucket], decision: Decision) -> pb.CheckReply:
    """The decision as an answer."""
    reply = pb.CheckReply(
        allowed=decision.allowed,
        states=[
            pb.BucketState(
                name=bucket.name,
                limit=bucket.limit.burst,
                remaining=_whole(verdict.remaining, bucket.limit),
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


def _whole(units: float, limit: Limit) -> float:
    """Units without the clock's rounding: what is less than a tick of it away from a whole number is that number."""
    nearest = float(round(units))
    return nearest if abs(units - nearest) <= RESOLUTION_S / limit.interval_s else units


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=min(int((seconds - whole) * 1e9), 999_999_999))
