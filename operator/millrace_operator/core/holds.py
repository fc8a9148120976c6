"""How long pods are kept once they are not needed: learned as a ski-rental problem from how long need stayed away.

A pod kept through a gap costs the gap; one that was let go costs the hold and, when need returns, a cold start. The hold
is the one that would have been cheapest over the gaps seen (Karlin, Manasse, McGeoch, Owicki 1990: with the distribution
known, the best fixed threshold), within bounds that follow the cold start. The shortest is one time to ready: with less,
pods are let go before those arrive that were ordered for the same backlog, and the loop swings.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

SHORTEST, LONGEST, FIRST = 1.0, 4.0, 2.5  # of the time to ready; the last until enough gaps are known
PRICE: Final = 6.0  # of a cold start, in the pod seconds it takes: the GPU's own, and five times that for who waits
ENOUGH: Final = 3  # gaps
KEPT: Final = 64  # gaps
FAR_S: Final = (
    1e6  # length of a gap that outlasted the longest hold: longer than any, whatever the time to ready becomes
)


@dataclass(frozen=True, slots=True)
class Gap:
    """So many pods were not needed for so long (s), until need came back or the longest hold was over."""

    seconds: float
    pods: int


@dataclass(frozen=True, slots=True)
class Away:
    """Pods above `low` up to `top` have not been needed since then (Unix s)."""

    low: int
    top: int
    since: float


@dataclass(frozen=True, slots=True)
class Gaps:
    """What was seen. `away` stands from the highest pods, which left first, to the lowest."""

    wish: int = 0
    away: tuple[Away, ...] = ()
    past: tuple[Gap, ...] = ()


def saw(gaps: Gaps, wish: int, ready_s: float, now: float) -> Gaps:
    """A tick's wish. Gaps below the shortest hold are not kept: they say nothing about which hold is best.

    >>> gaps = saw(saw(Gaps(), 5, 40.0, now=0.0), 2, 40.0, now=10.0)
    >>> saw(gaps, 4, 40.0, now=70.0)
    Gaps(wish=4, away=(Away(low=4, top=5, since=10.0),), past=(Gap(seconds=60.0, pods=2),))
    """
    longest, shortest = LONGEST * ready_s, SHORTEST * ready_s
    away = list(gaps.away)
    ended: list[Gap] = []
    while away and now - away[0].since > longest:
        gone = away.pop(0)
        ended.append(Gap(FAR_S, gone.top - gone.low))
    while away and away[-1].low < wish:
        last = away.pop()
        ended.append(Gap(now - last.since, min(wish, last.top) - last.low))
        if last.top > wish:
            away.append(replace(last, low=wish))
    if wish < gaps.wish:
        away.append(Away(wish, gaps.wish, now))
    kept = [gap for gap in ended if gap.seconds >= shortest]
    return Gaps(wish, tuple(away), (*gaps.past, *kept)[-KEPT:])


def best(gaps: Gaps, ready_s: float, least_s: float, most_s: float) -> float:
    """The hold (s) that would have cost least, within the bounds of the cold start and those of the spec.

    Need that comes back within 100 s is waited for; need that stays away for an hour is not.

    >>> best(Gaps(past=(Gap(100.0, 1),) * 4), 60.0, 10.0, 1200.0), best(Gaps(past=(Gap(3600.0, 1),) * 4), 60.0, 10.0, 1200.0)
    (100.0, 60.0)
    """

    def bounded(seconds: float) -> float:
        return max(least_s, min(seconds, most_s))

    low, high = bounded(SHORTEST * ready_s), bounded(LONGEST * ready_s)
    if len(gaps.past) < ENOUGH:
        return bounded(FIRST * ready_s)
    kept_s, gone, cheapest = 0.0, sum(gap.pods for gap in gaps.past), (math.inf, low)
    for hold_s, pods in sorted([(gap.seconds, gap.pods) for gap in gaps.past] + [(low, 0), (high, 0)]):
        kept_s, gone = kept_s + hold_s * pods, gone - pods
        if low <= hold_s <= high:
            cheapest = min(cheapest, (kept_s + gone * (hold_s + PRICE * ready_s), hold_s))
    return cheapest[1]
