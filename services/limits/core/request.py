"""One request over several buckets: it takes from every one or from none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.limits.core.gcra import Limit, Verdict, take


@dataclass(frozen=True, slots=True)
class Bucket:
    """A named bucket and what this request takes from it; cost 0 asks without taking."""

    name: str
    limit: Limit
    cost: float


@dataclass(frozen=True, slots=True)
class Decision:
    """`refused_by` is the index of the first bucket that refuses, None when all admit.

    `verdicts` are in the order of the buckets. When the request is refused the others show their bucket as it is.
    """

    refused_by: int | None
    verdicts: tuple[Verdict, ...]

    @property
    def allowed(self) -> bool:
        """Did every bucket admit?"""
        return self.refused_by is None


def decide(buckets: Sequence[Bucket], tats: Mapping[str, float], now: float) -> tuple[Decision, dict[str, float]]:
    """The decision and the arrival times to keep. A bucket that is named twice is taken from twice.

    >>> many, one = Limit(rate=10, period_s=1, burst=10), Limit(rate=1, period_s=1, burst=1)
    >>> decision, kept = decide([Bucket("a", many, 1), Bucket("b", one, 2)], {}, now=100.0)
    >>> decision.refused_by, kept
    (1, {})
    """
    kept: dict[str, float] = {}
    verdicts: list[Verdict] = []
    for index, bucket in enumerate(buckets):
        verdict = take(bucket.limit, kept.get(bucket.name, tats.get(bucket.name, 0.0)), bucket.cost, now)
        if not verdict.allowed:
            return refuse(buckets, tats, now, index), {}
        verdicts.append(verdict)
        kept[bucket.name] = verdict.tat
    return Decision(None, tuple(verdicts)), kept


def refuse(buckets: Sequence[Bucket], tats: Mapping[str, float], now: float, index: int) -> Decision:
    """The decision in which the bucket at `index` refuses and nothing is taken."""

    def verdict(position: int, bucket: Bucket) -> Verdict:
        earlier = sum(b.cost for b in buckets[:position] if b.name == bucket.name) if position == index else 0.0
        cost = earlier + bucket.cost if position == index else 0.0
        return take(bucket.limit, tats.get(bucket.name, 0.0), cost, now)

    return Decision(index, tuple(verdict(position, bucket) for position, bucket in enumerate(buckets)))
