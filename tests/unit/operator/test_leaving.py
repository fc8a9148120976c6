"""A deleted pool: what waits is worked off before its workers drain, and nothing waits for ever."""

import doctest
import math
from dataclasses import replace

import pytest

from millrace_operator.core import leaving
from millrace_operator.core.leaving import LONGEST_S, QUIET_S, UNKNOWN_S, Stage, stage
from millrace_operator.core.vocabulary import Observation

DELETED = 1_764_072_190.0
BUSY = DELETED + 100
SEEN = Observation(replicas=2, signal_age_s=0.1)


def test_the_worked_examples_hold():
    """Those of the docstrings."""
    assert doctest.testmod(leaving).failed == 0


@pytest.mark.parametrize("work", [{"waiting": 1}, {"running": 1}, {"signal_age_s": 61.0, "lag": 1}])
def test_a_pool_with_tasks_works(work):
    """By the signal, or by Kafka's lag when that is lost; until the longest time is over."""
    seen = replace(SEEN, **work)
    assert stage(seen, DELETED, DELETED, DELETED + LONGEST_S - 1) is Stage.WORKS
    assert stage(seen, DELETED, DELETED, DELETED + LONGEST_S) is Stage.DRAINS


@pytest.mark.parametrize(
    ("sight", "patience_s"),
    [
        ({}, QUIET_S),
        ({"signal_age_s": 61.0, "lag": 0}, QUIET_S),
        ({"signal_age_s": 16.0}, UNKNOWN_S),
        ({"signal_age_s": 16.0, "waiting": 9, "lag": 9}, UNKNOWN_S),
        ({"signal_age_s": math.inf}, UNKNOWN_S),
    ],
)
def test_a_quiet_pool_drains_after_a_while_and_one_that_nobody_sees_after_a_longer_one(sight, patience_s):
    """A task may be on its way, or a dispatcher; a new operator hears nothing at first."""
    seen = replace(SEEN, **sight)
    assert stage(seen, DELETED, BUSY, BUSY + patience_s - 0.1) is Stage.WAITS
    assert stage(seen, DELETED, BUSY, BUSY + patience_s) is Stage.DRAINS
