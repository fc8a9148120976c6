"""Deadlines and backoff are arithmetic."""

import itertools
import random

from services.chassis.backoff import backoff
from services.chassis.deadline import remaining


def test_a_deadline_in_the_past_leaves_nothing():
    """Time left is never negative."""
    assert remaining(95.0, 100.0) == 0.0


def test_no_deadline_leaves_the_most_allowed():
    """0 means none."""
    assert remaining(0, 100.0, at_most=2.0) == 2.0


def test_time_left_is_capped():
    """A far deadline does not make a long timeout."""
    assert remaining(200.0, 100.0, at_most=2.0) == 2.0


def test_backoff_stays_positive_and_below_its_ceiling():
    """Each delay lies in (0, ceiling], the ceiling doubles up to the maximum."""
    delays = list(itertools.islice(backoff(0.1, 0.8, random.Random(1)), 50))
    for delay, ceiling in zip(delays, itertools.chain([0.1, 0.2, 0.4], itertools.repeat(0.8)), strict=False):
        assert 0 < delay <= ceiling
