"""Buckets in this process, on a clock that a test may move."""

from collections.abc import Callable, Sequence

from services.limits.core.request import Bucket, Decision, decide


class MemoryBucketStore:
    """The reference: what `core.request.decide` says, one request after the other."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tats: dict[str, float] = {}

    async def decide(self, requests: Sequence[Sequence[Bucket]]) -> list[Decision]:
        """See ports."""
        now, decisions = self._clock(), []
        for buckets in requests:
            decision, kept = decide(buckets, self._tats, now)
            self._tats.update(kept)
            decisions.append(decision)
        return decisions
