"""Faults by seed."""

import random
from itertools import islice

import pytest

from tests.chaos.schedule import STORES, Fault, Kind, rounds

INSTANCES = ["redis", "kafka", "triton", "router-1", "gateway-1", "gateway-2", "worker-1", "worker-2", "dispatcher-1"]
POOLS = ["sim", "tiny"]


def first(seed: int, count: int = 1) -> list[list[Fault]]:
    return list(islice(rounds(seed, INSTANCES, POOLS), count))


def test_a_seed_is_one_schedule() -> None:
    """The same seed hurts the same in the same order; another one in another."""
    assert first(7, 3) == first(7, 3)
    assert first(7) != first(8)


@pytest.mark.parametrize("seed", range(20))
def test_every_round_kills_every_instance_and_knows_every_kind(seed: int) -> None:
    """Killed once, hurt once in another way; the lanes of each pool come twice."""
    for faults in first(seed, 3):
        assert sorted(f.target for f in faults if f.kind is Kind.KILL) == sorted(INSTANCES)
        milder = [f for f in faults if f.kind not in {Kind.KILL, Kind.DUPLICATE}]
        assert sorted(f.target for f in milder) == sorted(INSTANCES)
        assert sorted(f.target for f in faults if f.kind is Kind.DUPLICATE) == POOLS
        assert {f.kind for f in milder} <= {Kind.PAUSE, Kind.SLOW, Kind.CUT}
        assert {Kind.SLOW, Kind.CUT} <= {f.kind for f in milder}


def test_every_instance_meets_every_kind_in_time() -> None:
    """Only a store is never paused: that stops everything and tells little."""
    met = {(f.target, f.kind) for faults in first(random.randrange(1 << 32), 100) for f in faults}
    hurt = {(name, kind) for name in INSTANCES for kind in Kind if kind is not Kind.DUPLICATE}
    assert met == hurt - {(store, Kind.PAUSE) for store in STORES} | {(pool, Kind.DUPLICATE) for pool in POOLS}
