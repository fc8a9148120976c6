"""Which process is hurt when: a pure function of the seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a process is hurt."""

    KILL = "kill"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Fault:
    """After `wait_s` since the one before, `kind` on `instance`; a pause ends after `pause_s`."""

    wait_s: float
    instance: str
    kind: Kind
    pause_s: float


# Longer than a lease and three heartbeats, so that others take over what the paused one believes to have.
PAUSES_S = (0.5, 2.0, 5.0)


def faults(seed: int, instances: list[str]) -> Iterator[Fault]:
    """Endless; every instance has its turn before any has its second."""
    rng = random.Random(seed)
    while True:
        for instance in rng.sample(instances, len(instances)):
            kind = rng.choice((Kind.KILL, Kind.KILL, Kind.PAUSE))
            # A pause of a store stops everything and tells little: it is killed.
            if instance in {"redis", "kafka", "triton"}:
                kind = Kind.KILL
            yield Fault(rng.uniform(0.5, 2.0), instance, kind, rng.choice(PAUSES_S))
