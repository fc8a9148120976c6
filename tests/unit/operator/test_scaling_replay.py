"""The law in a closed loop with pods that start slowly: a sale that quadruples the load within a minute."""

import pytest

from tests.bench.autoscaling import GRACE_S, MOST, SLOTS, Keda, Law, World

SEED = 1


@pytest.fixture(scope="module")
def law():
    return World("flash", SEED).run(Law())


def test_a_flash_sale_is_served_late_only_while_the_first_pods_start(law):
    """Late for about one cold start, 150 s, with at most two and a half times the pods that the load takes."""
    assert law.late_s <= 1.6 * 150
    assert law.peak <= 2.5 * 32 * 6 / SLOTS
    assert law.turns <= 5 * law.length / 3600


def test_the_law_takes_far_fewer_gpu_hours_than_lag_and_threshold(law):
    """Than KEDA with its default threshold, which is late for longer and goes to the limit."""
    keda = World("flash", SEED).run(Keda())
    assert law.pod_s <= 0.6 * keda.pod_s
    assert law.late_s <= keda.late_s
    assert keda.peak == MOST


def test_no_task_is_interrupted_by_the_way_down(law):
    """Whoever drains finishes what it runs, and at the end the pods are those of the load at the end."""
    assert law.interrupted == 0, f"within {GRACE_S} s"
    assert len(law.asked) <= 8
