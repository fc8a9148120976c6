"""The control law, case by case: what it decides and in which words."""

import doctest
import importlib
import math
from dataclasses import replace

import pytest

from millrace_operator.core.decide import decide
from millrace_operator.core.vocabulary import Bound, Learned, Manual, Memory, Mode, Observation, Policy, ScalingReason

NOW = 1_764_072_190.0  # 12:03:10Z
POLICY = Policy(minimum=0, maximum=20, step_up=20)
LEARNED = Learned(ready_s=40.0, hold_s=100.0)
QUIET = Observation(replicas=0, signal_age_s=0.2, service_s=2.0)


def steady(pods, **other):
    """So many pods, and a load that they carry with head-room: 6 of 8 slots each."""
    return replace(
        QUIET, replicas=pods, ready=pods, running=pods * 6, arrivals_fast=pods * 3.0, arrivals_slow=pods * 3.0, **other
    )


def held(pods, now=NOW):
    """A memory in which that was wished just now and work was there."""
    return Memory(wishes=((now, pods),), active_at=now)


def until(now, decision):
    """The memory of a decision whose sight was the same, second by second, until now."""
    return replace(decision.memory, ticked_at=now)


@pytest.mark.parametrize(
    "name", ["scaling", "need", "decide", "holds", "learning", "victims", "troubles", "conditions"]
)
def test_the_worked_examples_of_the_operators_cores_hold(name):
    """Every example in a docstring is true."""
    assert doctest.testmod(importlib.import_module(f"millrace_operator.core.{name}")).failed == 0


def test_a_load_that_is_carried_moves_nothing():
    """Ten pods for sixty busy slots of eighty."""
    decision = decide(POLICY, steady(10), LEARNED, held(10), NOW)
    assert decision.sentence == "10 -> 10: as many as needed"
    assert (decision.reason, decision.bound, decision.changes) == (ScalingReason.STEADY, Bound.NONE, False)


def test_the_first_task_of_a_pool_at_zero_orders_as_many_as_it_takes():
    """Not one and then ask again: 300 s of work are burned within 12 s by 8 slots a pod."""
    seen = replace(QUIET, waiting=150, work_s=300.0)
    decision = decide(POLICY, seen, LEARNED, Memory(), NOW)
    assert decision.sentence == "0 -> 4: 300 s of work wait and no pod is there; one takes about 40 s to be ready"


def test_pods_under_way_are_capacity_from_their_instant_on():
    """The same backlog orders fewer pods when two more are 12 s away, and none is ordered twice."""
    alone = replace(QUIET, replicas=8, ready=8, waiting=2000, work_s=4000.0)
    coming = replace(alone, replicas=10, starting=(NOW - 28.0, NOW - 28.0))
    without = decide(POLICY, alone, LEARNED, held(8), NOW)
    with_two = decide(POLICY, coming, LEARNED, held(10), NOW)
    assert without.need.backlog_s - with_two.need.backlog_s == 2 * 8 * 28
    assert with_two.sentence.startswith("10 -> 11: 4000 s of work wait for 8 pods of 8 slots and 2 more are 12 s away")


def test_a_pod_that_never_becomes_ready_is_not_counted_on():
    """Late by its whole time to ready, it is no capacity within the horizon."""
    seen = replace(QUIET, replicas=9, ready=8, waiting=2000, work_s=4000.0)
    stuck = replace(seen, starting=(NOW - 2 * LEARNED.ready_s,))
    alone = decide(POLICY, replace(seen, replicas=8), LEARNED, held(8), NOW)
    assert decide(POLICY, stuck, LEARNED, held(9), NOW).need == alone.need


def test_a_small_step_up_waits_until_it_lasted():
    """One pod more for the load, with nothing waiting, only after 45 s; with work waiting at once."""
    seen = replace(steady(10), arrivals_fast=31.0, arrivals_slow=31.0)
    first = decide(POLICY, seen, LEARNED, held(10), NOW)
    assert first.sentence == "10 -> 10: 11 would be better, if that lasts until 12:03:55Z"
    assert decide(POLICY, seen, LEARNED, until(NOW + 43, first), NOW + 44).desired == 10
    assert decide(POLICY, seen, LEARNED, until(NOW + 44, first), NOW + 45).desired == 11
    waiting = replace(seen, waiting=2, work_s=2.5)
    assert decide(POLICY, waiting, LEARNED, first.memory, NOW + 5).reason is ScalingReason.LOAD_GREW


def test_fewer_pods_wait_for_the_hold_and_the_highest_wish_within_it():
    """8 wished 60 s ago stand 40 s longer, then 3."""
    memory = Memory(wishes=((NOW - 60, 8), (NOW - 5, 3)), active_at=NOW)
    seen = replace(steady(3), replicas=8, ready=8)
    early = decide(POLICY, seen, LEARNED, memory, NOW + 40)
    assert early.sentence == "8 -> 8: fewer would do; held until 12:03:50Z"
    late = decide(POLICY, seen, LEARNED, early.memory, NOW + 41)
    assert late.sentence == "8 -> 3: no more were needed for 100 s"


def test_a_small_step_down_of_a_large_pool_waits_longer():
    """One of twenty goes only once that lasted for two minutes beyond the hold."""
    memory, seen = Memory(wishes=((NOW - 200, 19),), active_at=NOW), replace(steady(19), replicas=20, ready=20)
    first = decide(POLICY, seen, LEARNED, memory, NOW)
    assert (first.desired, first.bound) == (20, Bound.CONFIRM)
    assert decide(POLICY, seen, LEARNED, until(NOW + 119, first), NOW + 120).desired == 19


def test_an_idle_pool_goes_to_one_then_to_zero_when_nothing_came_for_the_idle_time():
    """The sentences say which of the times is awaited."""
    memory, seen = Memory(wishes=((NOW - 200, 0),), active_at=NOW), replace(QUIET, replicas=5, ready=5)
    first = decide(POLICY, seen, LEARNED, memory, NOW)
    assert first.desired == 1
    last = decide(POLICY, replace(seen, replicas=1, ready=1), LEARNED, until(NOW + 598, first), NOW + 599)
    assert last.sentence == "1 -> 1: nothing waits or runs; zero at 12:13:10Z"
    gone = decide(POLICY, replace(seen, replicas=1, ready=1), LEARNED, last.memory, NOW + 600)
    assert gone.sentence == "1 -> 0: nothing waited, ran or arrived for 600 s"


def test_a_new_operator_lowers_nothing_before_hold_and_idle_time_passed():
    """Its memory is empty: what is there counts as wished and as active."""
    seen = replace(QUIET, replicas=5, ready=5)
    first = decide(POLICY, seen, LEARNED, Memory(), NOW)
    assert first.desired == 5
    assert decide(POLICY, seen, LEARNED, until(NOW + 100, first), NOW + 101).desired == 1
    assert decide(POLICY, replace(seen, replicas=1), LEARNED, until(NOW + 598, first), NOW + 599).desired == 1


def test_a_signal_that_was_stale_makes_hold_and_idle_time_begin_again():
    """Nobody saw whether work came meanwhile."""
    memory, seen = Memory(wishes=((NOW - 5000, 0),), active_at=NOW - 5000), replace(QUIET, replicas=5, ready=5)
    assert decide(POLICY, seen, LEARNED, memory, NOW).desired == 0
    blind = decide(POLICY, replace(seen, signal_age_s=16.0), LEARNED, memory, NOW)
    assert blind.sentence == "5 -> 5: the dispatcher's signal is stale; nothing moves on it"
    assert decide(POLICY, seen, LEARNED, until(NOW + 49, blind), NOW + 50).desired == 5
    assert decide(POLICY, seen, LEARNED, until(NOW + 149, blind), NOW + 150).desired == 1


def test_a_time_in_which_nobody_looked_lowers_nothing():
    """Six busy pods, ten minutes unseen, one quiet tick: who knows what came meanwhile? Holds and idle time begin again."""
    before = decide(POLICY, steady(6), LEARNED, held(6), NOW)
    quiet, back = replace(QUIET, replicas=6, ready=6), NOW + 600
    seen = decide(POLICY, quiet, LEARNED, before.memory, back)
    assert seen.sentence == "6 -> 6: fewer would do; held until 12:14:50Z"
    assert decide(POLICY, quiet, LEARNED, until(back + 101, seen), back + 102).desired == 1
    last = replace(quiet, replicas=1, ready=1)
    assert decide(POLICY, last, LEARNED, until(back + 598, seen), back + 599).desired == 1
    assert decide(POLICY, last, LEARNED, until(back + 599, seen), back + 600).desired == 0


def test_after_a_time_in_which_nobody_looked_work_is_answered_at_once():
    """Only what lowers waits, and a small step that was to last."""
    before = decide(POLICY, steady(6), LEARNED, held(6), NOW)
    assert decide(POLICY, steady(6, waiting=400, work_s=4000.0), LEARNED, before.memory, NOW + 600).desired > 6
    first = decide(POLICY, replace(steady(10), arrivals_fast=31.0, arrivals_slow=31.0), LEARNED, held(10), NOW)
    again = decide(POLICY, replace(steady(10), arrivals_fast=31.0, arrivals_slow=31.0), LEARNED, first.memory, NOW + 45)
    assert (again.desired, again.reason) == (10, ScalingReason.CONFIRMING)


def test_a_lost_signal_leaves_the_lag_as_a_lower_bound():
    """It raises what is too few and lowers nothing."""
    lost = replace(QUIET, signal_age_s=80.0)
    raised = decide(POLICY, replace(lost, lag=200), LEARNED, held(0), NOW)
    assert raised.sentence == (
        "0 -> 5: the dispatcher has said nothing for over 60 s; 200 tasks of 2 s in Kafka ask for 5"
    )
    kept = decide(POLICY, replace(lost, replicas=9, ready=9, lag=200), LEARNED, held(9), NOW)
    assert (kept.desired, kept.reason) == (9, ScalingReason.SIGNAL_LOST)
    assert raised.wish is kept.wish is None, "nothing is learned blind"
    never = decide(POLICY, replace(lost, replicas=3, signal_age_s=math.inf), LEARNED, held(3), NOW)
    assert never.sentence == (
        "3 -> 3: the dispatcher has not said anything yet; nothing is lowered and Kafka's lag is unknown"
    )


def test_a_number_set_by_hand_is_a_floor_for_its_time():
    """It keeps what the load does not need, and raises what somebody else lowered; then the law goes on."""
    memory = Memory(wishes=((NOW - 200, 2),), active_at=NOW)
    seen = replace(steady(2), replicas=6, ready=6, manual=Manual(6, NOW - 100))
    kept = decide(POLICY, seen, LEARNED, memory, NOW)
    assert kept.sentence == "6 -> 6: fewer are wanted; 6 were asked for by hand, a floor until 12:11:30Z"
    assert decide(POLICY, seen, LEARNED, until(NOW + 499, kept), NOW + 500).desired == 2
    raised = decide(POLICY, replace(seen, replicas=4), LEARNED, memory, NOW)
    assert (raised.desired, raised.reason, raised.bound) == (6, ScalingReason.BOUNDS, Bound.MANUAL)


def test_bounds_of_the_spec_say_so():
    """A pool outside of them is moved by them alone; a wish beyond them is named."""
    low = decide(replace(POLICY, minimum=3), replace(QUIET, replicas=1, ready=1), LEARNED, held(1), NOW)
    assert low.sentence == "1 -> 3: minReplicas is 3"
    high = decide(replace(POLICY, maximum=8), steady(10), LEARNED, held(10), NOW)
    assert high.sentence == "10 -> 8: maxReplicas is 8"
    full = decide(replace(POLICY, maximum=10), steady(10, waiting=900, work_s=9000.0), LEARNED, held(10), NOW)
    assert (full.desired, full.reason, full.bound) == (10, ScalingReason.LIMITED, Bound.MAXIMUM)
    assert full.wish == 10 < full.need.pods
    assert full.sentence == "10 -> 10: more are wanted; maxReplicas is 10"


def test_ordered_steps_share_one_limit_within_a_period():
    """8 at once, none 29 s later, the rest after 30 s."""
    policy, seen = replace(POLICY, step_up=8), replace(QUIET, waiting=4000, work_s=8000.0)
    first = decide(policy, seen, LEARNED, Memory(), NOW)
    assert (first.desired, first.bound) == (8, Bound.STEP)
    seen = replace(seen, replicas=8, starting=(NOW,) * 8)
    assert decide(policy, seen, LEARNED, first.memory, NOW + 29).desired == 8
    assert decide(policy, seen, LEARNED, first.memory, NOW + 30).desired == 16


def test_pods_that_drain_come_back_first():
    """And the sentence says how many."""
    seen = replace(QUIET, replicas=1, ready=1, draining=2, waiting=150, work_s=600.0)
    decision = decide(POLICY, seen, LEARNED, held(1), NOW)
    assert decision.sentence.endswith("; 2 of them come back from draining")


@pytest.mark.parametrize("mode", [Mode.MANUAL, Mode.PAUSED, Mode.EXTERNAL])
def test_another_mode_is_named(mode):
    """The number is what it is."""
    decision = decide(replace(POLICY, mode=mode), replace(QUIET, replicas=50), LEARNED, Memory(), NOW)
    assert decision.sentence.startswith(f"50 -> 50: the mode is {mode.value}: ")


def test_longer_tasks_that_wait_count_at_their_own_length():
    """The same number of tasks a second is more load when the waiting ones are three times as long."""
    seen = steady(5, waiting=100)
    short = decide(POLICY, replace(seen, work_s=200.0), LEARNED, held(5), NOW)
    long = decide(POLICY, replace(seen, work_s=600.0), LEARNED, held(5), NOW)
    assert long.need.load == 3 * short.need.load
