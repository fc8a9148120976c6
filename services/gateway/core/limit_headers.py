"""Rate-limit headers (draft-ietf-httpapi-ratelimit-headers): the policies that hold and what is left of them."""

import math

from google.protobuf.duration_pb2 import Duration

from millrace.limits.v1.limits_pb2 import CheckReply, CheckRequest


def limit_title(bucket: str) -> str:
    """What clients read instead of a bucket's name.

    >>> limit_title("{acme}:key:k1:requests"), limit_title("{acme}:tokens")
    ('key-requests', 'tenant-tokens')
    """
    owner = "key" if "}:key:" in bucket else "tenant"
    return f"{owner}-{bucket.rpartition(':')[2]}"


def limit_headers(request: CheckRequest, reply: CheckReply) -> dict[str, str]:
    """`RateLimit-Policy` (q = burst, w = seconds in which that much is gained) and `RateLimit` (r = left, t = seconds to full)."""
    policies = [
        f'"{limit_title(b.name)}";q={b.burst:.0f};w={math.ceil(_seconds(b.period) * b.burst / b.rate)}'
        for b in request.buckets
    ]
    states = [
        f'"{limit_title(s.name)}";r={math.floor(s.remaining)};t={math.ceil(_seconds(s.reset))}' for s in reply.states
    ]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
