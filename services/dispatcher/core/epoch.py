"""Which epoch does a new owner take?"""


def next_epoch(stored: int, reported: int, now_s: float) -> int:
    """Above the highest epoch that Redis remembers and the highest that a worker reported; never below the clock in ms.

    Any one of the three may be wrong: Redis may have forgotten, no worker may have spoken yet, a clock may have been set
    back. Together they only grow.

    >>> next_epoch(stored=7, reported=9, now_s=0.004)
    10
    >>> next_epoch(stored=7, reported=9, now_s=1764075723.001)
    1764075723001
    """
    return max(stored + 1, reported + 1, int(now_s * 1000))
