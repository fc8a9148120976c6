"""The two clocks. Cores take `now` as an argument; only shells call these."""

import time


def now() -> float:
    """Unix time in seconds: for instants that travel or are stored."""
    return time.time()


def monotonic() -> float:
    """Seconds that never jump: for durations inside one process."""
    return time.monotonic()
