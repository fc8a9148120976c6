"""Who drains, and who comes back."""

import random

from millrace_operator.core.victims import Victim, choose, take_back

PODS = [
    Victim("old", ready=True, draining=False, work_s=5.0, created=1.0),
    Victim("new", ready=True, draining=False, work_s=5.0, created=9.0),
    Victim("busy", ready=True, draining=False, work_s=50.0, created=3.0),
    Victim("sick", ready=False, draining=False, work_s=60.0, created=8.0),
    Victim("leaving", ready=True, draining=True, work_s=2.0, created=2.0),
    Victim("gone", ready=False, draining=True, work_s=0.0, created=2.0, terminating=True),
]


def test_not_ready_then_least_work_then_newest():
    """So that the least is interrupted and the least is waited for."""
    assert choose(PODS, 99) == ("sick", "new", "old", "busy")
    assert choose(PODS, 1) == ("sick",)
    assert choose(PODS, 0) == choose(PODS, -3) == ()


def test_nobody_drains_twice_and_nobody_comes_back_from_deletion():
    """Whatever number is asked for."""
    assert not {"leaving", "gone"} & set(choose(PODS, 99))
    assert take_back(PODS, 99) == ("leaving",)


def test_the_order_of_the_pods_does_not_matter():
    """Equal ones go by name."""
    pods = [Victim(name, ready=True, draining=False, work_s=1.0, created=1.0) for name in "dacb"]
    for _ in range(20):
        random.shuffle(pods)
        assert choose(pods, 3) == ("a", "b", "c")


def test_ready_pods_with_the_most_work_left_come_back_first():
    """They would have held their place longest anyway, and they serve at once."""
    pods = [
        Victim("short", ready=True, draining=True, work_s=1.0, created=1.0),
        Victim("long", ready=True, draining=True, work_s=9.0, created=1.0),
        Victim("cold", ready=False, draining=True, work_s=0.0, created=1.0),
    ]
    assert take_back(pods, 3) == ("long", "short", "cold")
