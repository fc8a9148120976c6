"""Whose turn is it?"""

from collections import Counter

import pytest

from millrace.task.v1.task_pb2 import (
    PRIORITY_CLASS_BACKGROUND,
    PRIORITY_CLASS_BATCH,
    PRIORITY_CLASS_CRITICAL,
    PRIORITY_CLASS_STANDARD,
)
from services.dispatcher.core.fair_queue import FairQueue, token_cost

STANDARD = PRIORITY_CLASS_STANDARD


def filled(tenants, each, cost=100.0, priority_class=STANDARD, weights=None):
    queue = FairQueue(weights)
    for tenant in tenants:
        for number in range(each):
            queue.put(f"{tenant}{number}", tenant, priority_class, cost)
    return queue


def taken(queue, count):
    return [queue.take() for _ in range(count)]


def test_an_output_token_costs_two_prompt_tokens():
    """And no task is free."""
    assert token_cost(100, 16) == 132
    assert token_cost(0, 0) == 1


def test_one_tenants_tasks_keep_their_order():
    """First in, first out within a tenant."""
    assert taken(filled("a", 3), 4) == ["a0", "a1", "a2", None]


def test_tenants_take_turns_whatever_the_length_of_their_queues():
    """A tenant with twenty times the tasks gets no more turns."""
    queue = filled("abc", 10)
    for number in range(200):
        queue.put(f"d{number}", "d", STANDARD, 100.0)
    assert Counter(task[0] for task in taken(queue, 40)) == {"a": 10, "b": 10, "c": 10, "d": 10}


def test_turns_are_counted_in_token_cost():
    """Tasks of twice the cost get half the turns."""
    queue = filled("a", 30, cost=100.0)
    for number in range(30):
        queue.put(f"b{number}", "b", STANDARD, 200.0)
    assert Counter(task[0] for task in taken(queue, 30)) == {"a": 20, "b": 10}


def test_weights_share_within_a_class():
    """A tenant of weight 3 gets three times the turns."""
    queue = filled("ab", 40, weights={"a": 3.0})
    assert Counter(task[0] for task in taken(queue, 40)) == {"a": 30, "b": 10}


def test_new_weights_count_from_now_on():
    """A configuration changes shares without touching who waits."""
    queue = filled("ab", 60)
    taken(queue, 20)
    queue.set_weights({"b": 4.0})
    assert Counter(task[0] for task in taken(queue, 50))["b"] == pytest.approx(40, abs=1)


def test_critical_work_is_always_next():
    """Whatever else waits."""
    queue = filled("a", 5)
    queue.put("urgent", "b", PRIORITY_CLASS_CRITICAL, 100.0)
    assert queue.take() == "urgent"


def test_classes_below_critical_share_nine_to_one_with_a_floor_for_background():
    """Standard 9 : batch 1, and background 5 % of all three."""
    queue = filled("s", 1000)
    for number in range(1000):
        queue.put(f"b{number}", "b", PRIORITY_CLASS_BATCH, 100.0)
        queue.put(f"g{number}", "g", PRIORITY_CLASS_BACKGROUND, 100.0)
    served = Counter(task[0] for task in taken(queue, 1000))
    assert served["g"] == pytest.approx(50, abs=2)
    assert served["s"] / served["b"] == pytest.approx(9, rel=0.05)


def test_a_class_alone_gets_everything():
    """Work is conserved."""
    assert taken(filled("a", 3, priority_class=PRIORITY_CLASS_BACKGROUND), 3) == ["a0", "a1", "a2"]


def test_idle_time_is_not_banked():
    """A tenant that comes after others were served a while gets its share from now on, not what it missed."""
    queue = filled("a", 100)
    taken(queue, 50)
    for number in range(50):
        queue.put(f"b{number}", "b", STANDARD, 100.0)
    assert Counter(task[0] for task in taken(queue, 20)) == {"a": 10, "b": 10}


def test_an_idle_class_banks_nothing_either():
    """Batch that comes late gets a tenth, not all of the next turns."""
    queue = filled("s", 400)
    taken(queue, 200)
    for number in range(100):
        queue.put(f"b{number}", "b", PRIORITY_CLASS_BATCH, 100.0)
    assert Counter(task[0] for task in taken(queue, 100))["b"] == pytest.approx(10, abs=1)


def test_what_a_task_really_cost_decides_later_turns():
    """Estimates are corrected: a tenant that costs twice its estimates gets half the turns."""
    queue = filled("ab", 200)
    served = Counter()
    for _ in range(120):
        task = queue.take()
        served[task[0]] += 1
        queue.settle(task, 200.0 if task[0] == "a" else 100.0)
    assert served["b"] / served["a"] == pytest.approx(2, rel=0.1)


def test_progress_beyond_the_estimate_counts_at_once():
    """A running task that outgrew its estimate moves its tenant back before it ends; less than the estimate does not yet."""
    queue = filled("ab", 10)
    first = queue.take()
    queue.correct(first, 50.0)
    assert [task[0] for task in taken(queue, 2)] == ["b", "a"]
    queue.correct(first, 1000.0)
    assert {task[0] for task in taken(queue, 8)} == {"b"}


def test_a_task_that_goes_back_costs_nothing_and_is_first():
    """A second run is not its tenant's fault."""
    queue = filled("ab", 3)
    first = queue.take()
    queue.settle(first, 0.0)
    queue.put(first, first[0], STANDARD, 100.0, first=True)
    assert queue.position(first) == 1
    assert set(taken(queue, 2)) == {"a0", "b0"}


def test_positions_count_along_the_tenants_own_queue():
    """1 is next; the queue of another tenant does not matter."""
    queue = filled("ab", 5)
    assert [queue.position(f"a{i}") for i in range(5)] == [1, 2, 3, 4, 5]
    queue.take()
    queue.take()
    assert queue.position("a4") == 4


def test_a_cancelled_task_leaves_its_place():
    """It never has its turn, and whoever was behind it is never told less than the truth."""
    queue = filled("a", 5)
    assert queue.remove("a1")
    assert not queue.remove("a1")
    assert "a1" not in queue
    assert queue.position("a4") >= 4
    assert taken(queue, 5) == ["a0", "a2", "a3", "a4", None]


def test_cost_ahead_is_what_the_class_is_served_first():
    """With two equal tenants a task waits for its own queue and as much of the other's."""
    queue = filled("ab", 5)
    assert queue.cost_ahead("a0") == 0
    assert queue.cost_ahead("a2") == pytest.approx(400)
    assert queue.share(STANDARD) == 1.0
    assert queue.share(PRIORITY_CLASS_BATCH) == pytest.approx(0.1)


def test_waiting_tasks_and_their_cost_are_known_by_class():
    """What the signal says."""
    queue = filled("ab", 5)
    assert queue.waiting(STANDARD) == (10, 1000.0)
    taken(queue, 10)
    assert queue.waiting(STANDARD) == (0, 0.0)
    assert len(queue) == 0


def test_an_adopted_task_is_charged_once():
    """A new owner knows what runs, so its tenant does not begin anew."""
    queue = filled("ab", 3)
    queue.adopt("old", "a", STANDARD, 250.0)
    queue.adopt("old", "a", STANDARD, 250.0)
    assert [task[0] for task in taken(queue, 5)] == ["b", "b", "b", "a", "a"]


def test_tenants_that_are_gone_cost_no_memory():
    """Ten thousand tenants with one task each leave no trace beyond a bound."""
    queue = FairQueue()
    for number in range(10_000):
        queue.put(f"t{number}", f"tenant{number}", STANDARD, 100.0)
        queue.settle(queue.take(), 100.0)
    assert len(queue._classes[STANDARD].tenants) < 2500
    assert len(queue._classes[STANDARD].heap) < 10_000


def test_heavy_are_those_with_at_least_the_mean_waiting_for_their_weight():
    """The heaviest first; a tenant of twice the weight may have twice as much waiting; critical work does not count."""
    queue = filled("ab", 2, weights={"c": 2.0})
    for number in range(20):
        queue.put(f"c{number}", "c", STANDARD, 100.0)
        queue.put(f"d{number}", "d", STANDARD, 100.0)
    for number in range(50):
        queue.put(f"k{number}", "k", PRIORITY_CLASS_CRITICAL, 100.0)
    assert queue.heavy(at_most=8) == ["d", "c"]
    assert queue.heavy(at_most=1) == ["d"]
    assert filled("ab", 3).heavy(at_most=8) == ["a", "b"]
    assert FairQueue().heavy(at_most=8) == []
