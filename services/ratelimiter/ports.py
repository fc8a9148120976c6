"""What the rate limiter needs from the world."""

from collections.abc import Sequence
from typing import Protocol

from services.limits.core.request import Bucket, Decision


class BucketStore(Protocol):
    """All buckets, on one clock."""

    async def decide(self, requests: Sequence[Sequence[Bucket]]) -> list[Decision]:
        """Decide the requests in order, each on what the ones before it left, as one step that nobody else comes between.

        Raises services.chassis.resp.RedisAwayError; then nothing or everything was taken.
        """
        ...
