"""Deadlines are instants that travel; timeouts are derived from them at the last moment."""


def remaining(deadline: float, now: float, at_most: float = float("inf")) -> float:
    """Seconds left until `deadline` (Unix seconds; 0 = none), never negative, never above `at_most`.

    >>> remaining(105.0, 100.0), remaining(95.0, 100.0), remaining(0, 100.0, at_most=2.0)
    (5.0, 0.0, 2.0)
    """
    if not deadline:
        return at_most
    return min(max(deadline - now, 0.0), at_most)
