"""What is hurt when, and how: a pure function of the seed."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What is done to an instance; `DUPLICATE` to the lanes of a pool."""

    KILL = "kill"
    PAUSE = "pause"  # held up altogether: others take over what it believes to have
    SLOW = "slow"  # held up most of the time: late, but never gone
    CUT = "cut"  # its TCP connections end under its hands and those of its peers
    DUPLICATE = "duplicate"  # the newest records once more, as after a confirmation that was lost


@dataclass(frozen=True, slots=True)
class Fault:
    """After `wait_s` since the one before was over, `kind` on `target`.

    `for_s` is how long it lasts, `share` how much of it is hit: the time of a slow one, the connections that are cut.
    """

    wait_s: float
    kind: Kind
    target: str
    for_s: float = 0.0
    share: float = 1.0


# A pause of a store stops everything and tells little.
STORES: Final = frozenset({"redis", "kafka", "triton"})
# The longest is longer than a lease and three heartbeats.
PAUSES_S: Final = (0.5, 2.0, 5.0)
SLOW_S: Final = 3.0
SLOW_SHARES: Final = (0.5, 0.9)
CUT_SHARES: Final = (0.3, 1.0)


def rounds(seed: int, instances: Sequence[str], pools: Sequence[str]) -> Iterator[list[Fault]]:
    """Endless. In each round every instance is killed once and hurt once in another way, and every pool's lanes are duplicated.

    Each of the other ways meets a third of the instances, in each round others.
    """
    rng = random.Random(seed)
    while True:
        milder = itertools.cycle((Kind.PAUSE, Kind.SLOW, Kind.CUT))
        deck = [(Kind.KILL, instance) for instance in instances]
        deck += [
            (kind, instance) for kind, instance in zip(milder, rng.sample(instances, len(instances)), strict=False)
        ]
        deck += [(Kind.DUPLICATE, pool) for pool in pools]
        rng.shuffle(deck)
        yield [_fault(rng, kind, target) for kind, target in deck]


def _fault(rng: random.Random, kind: Kind, target: str) -> Fault:
    wait_s = rng.uniform(0.3, 1.5)
    if kind is Kind.PAUSE and target in STORES:
        kind = Kind.CUT
    match kind:
        case Kind.KILL | Kind.DUPLICATE:
            return Fault(wait_s, kind, target)
        case Kind.PAUSE:
            return Fault(wait_s, kind, target, for_s=rng.choice(PAUSES_S))
        case Kind.SLOW:
            return Fault(wait_s, kind, target, for_s=SLOW_S, share=rng.choice(SLOW_SHARES))
        case Kind.CUT:
            return Fault(wait_s, kind, target, share=rng.choice(CUT_SHARES))
