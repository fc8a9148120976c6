"""Answers and flights in this process, for tests; `now` is the only clock."""

from collections.abc import Sequence

from services.cache.core.flight import Flight, Lead, may_store, meet
from services.cache.core.lookup import Ask, Found, Hit
from services.cache.ports import Ending


class MemoryAnswerCache:
    """The reference."""

    def __init__(self) -> None:
        self._answers: dict[bytes, tuple[Hit, float]] = {}
        self._flights: dict[bytes, tuple[Flight, float]] = {}

    async def look(self, asks: Sequence[Ask], now: float) -> list[Found]:
        """See ports."""
        return [self._look(ask, now) for ask in asks]

    async def end(self, endings: Sequence[Ending], now: float) -> list[bool]:
        """See ports."""
        return [self._end(ending, now) for ending in endings]

    def _look(self, ask: Ask, now: float) -> Found:
        hit, until = self._answers.get(ask.key, (None, 0.0))
        if hit and until > now:
            return hit
        flight = self._flight(ask.key, now)
        met = meet(flight, ask.asker)
        if met == Lead(ask.asker.fence):
            self._flights[ask.key] = ask.asker, now + ask.lead_s
        return met

    def _end(self, ending: Ending, now: float) -> bool:
        flight = self._flight(ending.key, now)
        if not may_store(flight, ending.fence):
            return False
        if flight and flight.fence == ending.fence:
            del self._flights[ending.key]
        if ending.answer is None:
            return False
        self._answers[ending.key] = Hit(ending.answer, now), now + ending.keep_s
        return True

    def _flight(self, key: bytes, now: float) -> Flight | None:
        flight, until = self._flights.get(key, (None, 0.0))
        return flight if until > now else None
