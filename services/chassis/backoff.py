"""Delays between tries: exponential with full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS 2015)."""

import random
from collections.abc import Iterator


def backoff(initial: float, maximum: float, rng: random.Random | None = None) -> Iterator[float]:
    """Yield delays in seconds, each uniform in (0, ceiling], the ceiling doubling from `initial` to `maximum`."""
    rng = rng or random.Random()  # noqa: S311 - jitter, not secrecy
    ceiling = initial
    while True:
        yield ceiling * (1 - rng.random())
        ceiling = min(ceiling * 2, maximum)
