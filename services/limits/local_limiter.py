"""Fail-share: what a gateway does while the limiter is away, which is neither to open nor to close.

Each of n gateways limits by itself at rate / n, so together they admit at most what the limiter would. A tenant whose
requests all reach one gateway is held to its share there.
"""

from millrace.limits.v1 import limits_pb2 as pb
from services.limits.check import buckets_of, reply_of
from services.limits.core.gcra import Limit
from services.limits.core.request import Bucket, decide

_SWEEP_AT = 10_000


class LocalLimiter:
    """Answers a `CheckRequest` in this process. `gateways`: how many share the limits, at least 1."""

    def __init__(self, gateways: int = 1) -> None:
        self.gateways = gateways
        self._tats: dict[str, float] = {}
        self._sweep_at = _SWEEP_AT

    def check(self, request: pb.CheckRequest, now: float) -> pb.CheckReply:
        """Decide now (Unix s). Raises ValueError for a request that the service would refuse as invalid."""
        asked = buckets_of(request)
        if isinstance(asked, str):
            raise ValueError(asked)  # noqa: TRY004 - the sentence says what is wrong with a value
        buckets = [Bucket(bucket.name, share(bucket, self.gateways), bucket.cost) for bucket in asked]
        decision, kept = decide(buckets, self._tats, now)
        self._tats.update(kept)
        if len(self._tats) > self._sweep_at:
            self._sweep(now)
        return reply_of(buckets, decision)

    def forget(self) -> None:
        """The limiter is back: the next time it is away begins with full buckets."""
        self._tats.clear()

    def _sweep(self, now: float) -> None:
        """Drop full buckets, which are as good as unknown ones."""
        self._tats = {name: tat for name, tat in self._tats.items() if tat > now}
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._tats))


def share(bucket: Bucket, gateways: int) -> Limit:
    """A gateway's part of a limit.

    A request that costs more than a share of the burst, but not more than the burst, passes when its bucket is full:
    otherwise long prompts could not pass at all while the limiter is away.

    >>> share(Bucket("a", Limit(rate=10, period_s=1, burst=8), cost=5), gateways=4)
    Limit(rate=2.5, period_s=1, burst=5)
    """
    whole = bucket.limit
    burst = min(max(whole.burst / gateways, bucket.cost, 1.0), whole.burst)
    return Limit(whole.rate / gateways, whole.period_s, burst)
