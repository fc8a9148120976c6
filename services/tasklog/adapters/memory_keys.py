"""A dictionary whose keys expire, as Redis's do."""

from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class ExpiringKeys(Generic[V]):
    """`clock` gives seconds, as `time.monotonic`. A key without a time lives on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._values: dict[str, V] = {}
        self._until: dict[str, float] = {}

    def get(self, key: str) -> V | None:
        """The value, unless the key is gone."""
        if self._until.get(key, float("inf")) <= self._clock():
            self.drop(key)
        return self._values.get(key)

    def setdefault(self, key: str, value: V) -> V:
        """The value there is, else this one."""
        found = self.get(key)
        return self._values.setdefault(key, value) if found is None else found

    def drop(self, key: str) -> None:
        """Forget the key."""
        self._values.pop(key, None)
        self._until.pop(key, None)

    def keep(self, key: str, keep_s: float) -> None:
        """Let the key live exactly `keep_s` seconds from now."""
        if self.get(key) is not None:
            self._until[key] = self._clock() + keep_s

    def keep_at_least(self, key: str, keep_s: float) -> None:
        """Let the key live `keep_s` seconds from now and never shorten its life."""
        self.keep(key, max(keep_s, self._until.get(key, 0.0) - self._clock()))

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._until.clear()
