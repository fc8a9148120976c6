"""How long tasks take."""

import pytest

from millrace.task.v1.task_pb2 import PRIORITY_CLASS_BATCH, PRIORITY_CLASS_STANDARD
from services.dispatcher.core.work import GUESS_PER_COST, GUESS_S, ServiceTimes


def test_before_the_first_end_there_is_a_guess():
    """And nobody is expired because of it."""
    times = ServiceTimes()
    assert times.mean_s == GUESS_S
    assert times.per_cost(PRIORITY_CLASS_STANDARD) == GUESS_PER_COST
    assert times.at_least(PRIORITY_CLASS_STANDARD, 1e6) == 0.0


def test_seconds_per_cost_are_learned():
    """Also by classes that have too few ends of their own."""
    times = ServiceTimes()
    for _ in range(50):
        times.learn(PRIORITY_CLASS_STANDARD, 100.0, 0.5)
    assert times.mean_s == pytest.approx(0.5)
    assert times.per_cost(PRIORITY_CLASS_STANDARD) == pytest.approx(0.005)
    assert times.per_cost(PRIORITY_CLASS_BATCH) == pytest.approx(0.005)
    for _ in range(50):
        times.learn(PRIORITY_CLASS_BATCH, 100.0, 5.0)
    assert times.per_cost(PRIORITY_CLASS_BATCH) == pytest.approx(0.05)
    assert times.per_cost(PRIORITY_CLASS_STANDARD) == pytest.approx(0.005)


def test_a_change_is_followed_within_about_a_hundred_ends():
    """An engine that became ten times slower."""
    times = ServiceTimes()
    for _ in range(200):
        times.learn(PRIORITY_CLASS_STANDARD, 100.0, 0.1)
    for _ in range(200):
        times.learn(PRIORITY_CLASS_STANDARD, 100.0, 1.0)
    assert times.mean_s == pytest.approx(1.0, rel=0.1)
    assert times.at_least(PRIORITY_CLASS_STANDARD, 100.0) == pytest.approx(1.0)


def test_what_a_task_needs_at_least_is_judged_kindly():
    """Neither a large estimate nor neighbours' long answers condemn a task."""
    times = ServiceTimes()
    for _ in range(60):
        times.learn(PRIORITY_CLASS_STANDARD, 2000.0, 10.0)
    assert times.at_least(PRIORITY_CLASS_STANDARD, 20.0) == pytest.approx(0.1)
    assert times.at_least(PRIORITY_CLASS_STANDARD, 20_000.0) == pytest.approx(10.0)
