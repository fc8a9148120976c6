"""When a deleted pool's workers may drain: once its queue is worked off, as far as anybody can tell. A pure function.

Routes send nothing to a pool from the snapshot on in which it leaves, so what is in its queue then is all that there will be. A
drain before that would leave tasks to nobody.
"""

from enum import Enum, auto
from typing import Final

from millrace_operator.core.decide import clock
from millrace_operator.core.scaling import BLIND_S, FROZEN_S
from millrace_operator.core.vocabulary import Observation

QUIET_S: Final = 5.0  # nothing waited or ran for so long; services hear of a snapshot within a second
UNKNOWN_S: Final = 60.0  # or nobody could tell for so long: the dispatchers may be gone as well
LONGEST_S: Final = 600.0  # the deadline of a task that names none; what waits longer than that stays in Kafka


class Stage(Enum):
    """Of a pool on its way out."""

    WORKS = auto()  # there are tasks: it is kept and scaled like any other
    WAITS = auto()  # none is seen, but not for long enough yet: nothing moves
    DRAINS = auto()  # its workers finish what they have and go


def stage(seen: Observation, deleted_at: float, busy_at: float, now: float) -> Stage:
    """Where a deleted pool is at `now`. `busy_at`: when it was last in `WORKS`, or first looked at (all Unix s).

    >>> stage(Observation(replicas=1, signal_age_s=0.1, waiting=3), deleted_at=0.0, busy_at=0.0, now=100.0).name
    'WORKS'
    >>> quiet = Observation(replicas=1, signal_age_s=0.1)
    >>> stage(quiet, 0.0, busy_at=100.0, now=101.0).name, stage(quiet, 0.0, busy_at=100.0, now=105.0).name
    ('WAITS', 'DRAINS')
    """
    if now - deleted_at >= LONGEST_S:
        return Stage.DRAINS
    works = _works(seen)
    if works:
        return Stage.WORKS
    return Stage.DRAINS if now - busy_at >= (UNKNOWN_S if works is None else QUIET_S) else Stage.WAITS


def _works(seen: Observation) -> bool | None:
    """None: nobody can tell."""
    if seen.signal_age_s <= FROZEN_S:
        return seen.waiting > 0 or seen.running > 0
    return None if seen.signal_age_s <= BLIND_S or seen.lag is None else seen.lag > 0


def sentence(at: Stage, deleted_at: float) -> str:
    """For people.

    >>> sentence(Stage.WORKS, 42790.0)
    'the pool is being deleted; what waits is worked off first, until 12:03:10Z at the latest'
    """
    if at is Stage.DRAINS:
        return "the pool is being deleted; its workers finish their last tasks"
    return f"the pool is being deleted; what waits is worked off first, until {clock(deleted_at + LONGEST_S)} at the latest"
