"""The load of a pool in numbers."""

import pytest

from millrace.task.v1.task_pb2 import PRIORITY_CLASS_STANDARD
from services.dispatcher.core.pool_signal import pool_signal
from tests.support.scheduling_desk import Desk


def test_the_signal_counts_work_in_seconds():
    """Waiting by cost, running by the mean that is left."""
    desk = Desk()
    for _ in range(100):
        desk.scheduler.times.learn(PRIORITY_CLASS_STANDARD, 100.0, 2.0)
    desk.hello(credit=1)
    for name in "abc":
        desk.admit(name)
    desk.assign()
    desk.now += 0.5
    signal = pool_signal("pool", desk.scheduler, desk.now)
    assert signal.work_s == pytest.approx(2 * 2.0 + 1.5, rel=0.01)
    assert signal.wait_s == pytest.approx(4.0 / 4, rel=0.01)
    assert (signal.workers, signal.slots, signal.busy_slots, signal.waiting) == (1, 4, 1, 2)
    assert [c.waiting for c in signal.classes] == [0, 2, 0, 0]


def test_a_pool_without_workers_says_so():
    """What waits would wait for one slot, and nothing is divided by zero."""
    desk = Desk()
    desk.admit("t")
    signal = pool_signal("pool", desk.scheduler, desk.now)
    assert (signal.workers, signal.slots, signal.waiting) == (0, 0, 1)
    assert signal.wait_s == signal.work_s > 0
    assert pool_signal("pool", desk.scheduler, desk.now, 8).wait_s == pytest.approx(signal.wait_s / 8, rel=0.01)


def test_the_signal_counts_who_was_buried_and_when_last():
    """Nothing is said of an instant while there was none."""
    desk = Desk()
    assert not pool_signal("pool", desk.scheduler, desk.now).HasField("last_dead_at")
    for at in (1_764_072_100.25, 1_764_072_190.5):
        desk.scheduler.table.buried(at)
    signal = pool_signal("pool", desk.scheduler, desk.now)
    assert (signal.dead, signal.last_dead_at.ToMilliseconds()) == (2, 1_764_072_190_500)
