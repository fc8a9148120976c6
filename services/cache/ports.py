"""What the cache needs from the world."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.cache.core.lookup import Ask, Found


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a leader. `answer` None: it has none, the flight is over."""

    key: bytes
    fence: str
    answer: bytes | None
    keep_s: float


class AnswerCache(Protocol):
    """Answers and flights by key. Methods raise services.chassis.resp.RedisAwayError."""

    async def look(self, asks: Sequence[Ask], now: float) -> list[Found]:
        """For each ask, in one step: the answer, whom to join, or the lead (core.flight.meet). Keys differ."""
        ...

    async def end(self, endings: Sequence[Ending], now: float) -> list[bool]:
        """Store what core.flight.may_store allows and end the flights these fences hold; was an answer stored?"""
        ...
