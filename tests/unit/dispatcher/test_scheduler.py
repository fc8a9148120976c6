"""Who gets which task, and what becomes of what workers say: events in, decisions out."""

import pytest

from millrace.dispatch.v1.dispatch_pb2 import Finished
from millrace.task.v1.task_pb2 import (
    OUTCOME_KIND_CANCELLED,
    OUTCOME_KIND_COMPLETED,
    OUTCOME_KIND_EXPIRED,
    OUTCOME_KIND_FAILED,
    PRIORITY_CLASS_STANDARD,
    Outcome,
)
from services.dispatcher.core.decisions import (
    Acknowledge,
    Assign,
    Close,
    End,
    FindHead,
    Stop,
)
from services.dispatcher.core.task_state import Stage, Trace
from tests.support.scheduling_desk import EPOCH, FIRST, Desk


@pytest.fixture
def desk():
    return Desk()


def test_a_task_goes_to_a_worker_against_a_credit(desk):
    """One credit, one task, numbered by the epoch."""
    desk.hello(credit=1)
    desk.admit("a")
    desk.admit("b")
    (assign,) = desk.assign()
    assert (assign.worker, assign.state.id, assign.attempt, assign.previous) == ("w1", "a", FIRST, 0)
    assert desk.assign() == []
    assert desk.worker().running == {"a": FIRST}
    assert desk.stage("b") is Stage.WAITING


def test_a_finished_task_is_closed_then_due_after_the_horizon(desk):
    """Closed first, acknowledged then, due once Redis cannot forget it any more."""
    desk.running()
    (close,) = desk.finished("t")
    assert close == Close(desk.table.get("t"), "w1", FIRST, answered=True)
    assert desk.stage() is Stage.ENDING
    assert desk.table.closed(close.state, desk.now, answered=True) == []
    assert desk.table.due(desk.now + 1.9) == []
    assert desk.table.due(desk.now + 2.0) == [close.state]


def test_a_finished_that_was_heard_before_is_only_acknowledged(desk):
    """It may be said twice."""
    desk.running()
    desk.finished("t")
    assert desk.finished("t") == [Acknowledge("w1", "t", FIRST)]


def test_a_finished_under_another_redis_run_is_run_again_by_its_worker(desk):
    """What was written may be forgotten: the next attempt goes to the worker that holds the text."""
    desk.hello("w2", credit=5)
    desk.running(worker="w2")
    desk.hello("w1", credit=9)
    assert desk.finished("t", worker="w2", run="older run") == [Acknowledge("w2", "t", FIRST)]
    (assign,) = desk.assign()
    assert (assign.worker, assign.attempt, assign.previous) == ("w2", FIRST + 1, FIRST)


def test_a_failed_attempt_goes_elsewhere_and_is_first(desk):
    """Other workers are tried before the one where it failed."""
    desk.running()
    desk.hello("w2", credit=1)
    desk.scheduler.credit(desk.worker(), 5)
    desk.admit("later")
    assert desk.finished("t", failure="no") == [Acknowledge("w1", "t", FIRST)]
    first, second = desk.assign()
    assert (first.state.id, first.worker, first.previous) == ("t", "w2", 0)
    assert (second.state.id, second.worker) == ("later", "w1")


def test_a_task_is_buried_after_its_last_failure():
    """The end names the last reason."""
    desk = Desk(max_attempts=2)
    desk.hello(credit=5)
    desk.admit("t")
    desk.assign()
    desk.finished("t", failure="no")
    desk.assign()
    acknowledge, end = desk.finished("t", FIRST + 1, failure="never")
    assert acknowledge == Acknowledge("w1", "t", FIRST + 1)
    assert end == End(desk.table.get("t"), FIRST + 2, OUTCOME_KIND_FAILED, "failed 2 times, last at w1: never")


def test_handing_back_is_no_failure():
    """A worker that drains."""
    desk = Desk(max_attempts=1)
    desk.running()
    desk.finished("t", handed_back=True)
    assert desk.stage() is Stage.WAITING


def test_an_old_attempts_failure_changes_nothing(desk):
    """It was replaced: only its worker may forget it."""
    desk.running()
    desk.now += 4
    desk.scheduler.lost(desk.now)
    desk.hello("w2")
    desk.assign()
    desk.hello("w1")
    assert desk.finished("t", FIRST, failure="late") == [Acknowledge("w1", "t", FIRST)]
    assert desk.stage() is Stage.RUNNING


def test_an_old_attempts_end_is_an_end(desk):
    """Its terminal is in the log: whoever runs now will find it."""
    desk.running()
    desk.now += 4
    desk.scheduler.lost(desk.now)
    desk.hello("w2")
    desk.assign()
    desk.hello("w1")
    assert isinstance(desk.finished("t", FIRST)[0], Close)


def test_tasks_of_a_lost_worker_go_on_elsewhere(desk):
    """Three seconds of silence; the text is not the other worker's own."""
    desk.running()
    desk.hello("w2", credit=1)
    desk.now += 2
    desk.worker("w2").heard_at = desk.now
    assert desk.scheduler.lost(desk.now) == []
    desk.now += 1.1
    desk.scheduler.lost(desk.now)
    (assign,) = desk.assign()
    assert (assign.worker, assign.attempt, assign.previous) == ("w2", FIRST + 1, 0)


def test_a_task_that_takes_its_worker_down_twice_is_buried(desk):
    """Started, no token, worker lost; and again."""
    desk.running()
    for attempt, name in ((FIRST, "w1"), (FIRST + 1, "w2")):
        desk.scheduler.started("t", attempt, 10, 0.0)
        desk.now += 4
        decisions = desk.scheduler.lost(desk.now)
        if name == "w1":
            assert decisions == []
            desk.hello("w2")
            desk.assign()
    assert [(d.kind, d.message) for d in decisions] == [(OUTCOME_KIND_FAILED, "took its worker down 2 times in a row")]


def test_a_worker_that_restarted_has_lost_its_tasks(desk):
    """Another boot under the same name: no waiting for silence."""
    desk.running()
    desk.hello(boot=2)
    (assign,) = desk.assign()
    assert (assign.worker, assign.attempt, assign.previous) == ("w1", FIRST + 1, 0)


def test_a_worker_that_comes_back_keeps_what_it_lists(desk):
    """What it does not list was lost with the broken stream and goes on."""
    desk.hello(credit=2)
    desk.admit("a")
    desk.admit("b")
    desk.assign()
    desk.hello(credit=0, running={"a": FIRST})
    assert desk.stage("a") is Stage.RUNNING
    assert desk.stage("b") is Stage.WAITING


def test_a_new_owner_adopts_what_a_worker_runs(desk):
    """Under the old owner's attempt number, whether its record or the worker comes first."""
    old = 5 << 20
    desk.admit("a", trace=Trace(old + 1, 1), expecting=True)
    assert desk.stage("a") is Stage.EXPECTED
    desk.scheduler.caught_up = False
    desk.hello(running={"a": old + 1, "b": old + 2})
    assert desk.stage("a") is Stage.RUNNING
    desk.admit("b", trace=Trace(old + 2, 1), expecting=True)
    assert desk.stage("b") is Stage.RUNNING
    assert desk.worker().running == {"a": old + 1, "b": old + 2}


def test_what_nobody_claims_goes_on_elsewhere_after_a_while(desk):
    """First in its tenant's queue, above the old attempt."""
    old = (9 << 20) + 4  # an owner whose clock was ahead of ours
    desk.admit("t", trace=Trace(old, 2), expecting=True)
    desk.hello()
    assert desk.assign() == []
    desk.scheduler.stop_expecting()
    (assign,) = desk.assign()
    assert assign.attempt == old + 1
    assert assign.state.history.begun == 3


def test_an_end_that_comes_before_its_record_waits_for_it():
    """Then it is closed; without a record it concerned an end that was committed."""
    desk = Desk(caught_up=False)
    finished = Finished(task="t", attempt=FIRST, run_id="run", outcome=Outcome(kind=OUTCOME_KIND_COMPLETED))
    assert desk.hello(finished=[finished]) == []
    assert [type(d) for d in desk.admit("t")] == [Close]
    other = Finished(task="gone", attempt=3, run_id="run")
    desk.hello(finished=[other])
    assert desk.scheduler.catch_up() == [Acknowledge("w1", "gone", 3)]
    assert desk.finished("gone", 3) == [Acknowledge("w1", "gone", 3)]


def test_a_fenced_attempt_of_ours_makes_us_read_the_log(desk):
    """Somebody gave a higher number: the next one must outrank it, and no worker goes on from its own text."""
    desk.running()
    (find,) = desk.scheduler.fenced(desk.worker(), "t", FIRST)
    assert isinstance(find, FindHead)
    head = (EPOCH + 3) << 20
    desk.scheduler.head_found(find.state, head)
    desk.scheduler.credit(desk.worker(), 1)
    (assign,) = desk.assign()
    assert (assign.attempt, assign.previous) == (head + 1, 0)


def test_a_fenced_attempt_that_was_replaced_is_no_news(desk):
    """We fenced it."""
    desk.running()
    desk.hello("w2")
    desk.now += 2
    desk.worker("w2").heard_at = desk.now
    desk.now += 1.5
    desk.scheduler.lost(desk.now)
    desk.assign()
    desk.hello("w1")
    assert desk.scheduler.fenced(desk.worker("w1"), "t", FIRST) == []


def test_whoever_holds_a_forgotten_text_gets_the_next_attempt(desk):
    """Without a credit; also after the end, within the horizon."""
    desk.running()
    (assign,) = desk.scheduler.need(desk.worker(), "t", FIRST, desk.now)
    assert (assign.worker, assign.attempt, assign.previous) == ("w1", FIRST + 1, FIRST)
    (close,) = desk.finished("t", FIRST + 1)
    desk.table.closed(close.state, desk.now, answered=True)
    (assign,) = desk.scheduler.need(desk.worker(), "t", FIRST + 1, desk.now)
    assert assign.attempt == FIRST + 2
    assert desk.table.due(desk.now + 2) == []


def test_a_need_for_an_attempt_that_was_replaced_is_not_granted(desk):
    """Somebody else may have gone on from there."""
    desk.running()
    assert desk.scheduler.need(desk.worker(), "t", FIRST - 1, desk.now) == []
    desk.hello("w2")
    assert desk.scheduler.need(desk.worker("w2"), "t", FIRST, desk.now) == []


def test_a_task_whose_deadline_cannot_be_met_is_not_assigned(desk):
    """Half of the tasks like it take longer than it has left."""
    for _ in range(30):
        desk.scheduler.times.learn(PRIORITY_CLASS_STANDARD, 100.0, 5.0)
    desk.hello()
    desk.admit("late", deadline=desk.now + 4)
    desk.admit("fine", deadline=desk.now + 6)
    end, assign = desk.assign()
    assert (end.state.id, end.kind) == ("late", OUTCOME_KIND_EXPIRED)
    assert assign.state.id == "fine"


def test_a_cancel_ends_a_waiting_task_and_stops_a_running_one(desk):
    """The worker writes the end of what it runs."""
    desk.admit("waits")
    (end,) = desk.scheduler.cancel("waits")
    assert end.kind == OUTCOME_KIND_CANCELLED
    desk.running("runs")
    assert desk.scheduler.cancel("runs") == [Stop("w1", "runs", FIRST)]
    assert desk.scheduler.cancel("unknown") == []


def test_a_task_that_waited_is_checked_for_its_cancel_before_it_is_sent(desk):
    """It is taken back and ends; events may have overtaken it."""
    desk.admit("t")
    desk.now += 1
    desk.hello(credit=1)
    (assign,) = desk.assign()
    assert assign.check
    assert desk.scheduler.stands(assign)
    assert [d.kind for d in desk.scheduler.call_off(assign)] == [OUTCOME_KIND_CANCELLED]
    assert desk.worker().credits == 1
    assert not desk.scheduler.stands(assign)
    assert desk.scheduler.call_off(assign) == []


def test_an_assignment_that_others_wait_for_is_not_called_off(desk):
    """The task's text may be on their screens; it stops once they are cancelled too."""
    desk.running("leader")
    desk.admit("b", joined="leader")
    desk.finished("leader", handed_back=True)
    desk.now += 1
    desk.hello("w2")
    (assign,) = desk.assign()
    assert desk.scheduler.call_off(assign) == []
    assert desk.scheduler.stands(assign)
    assert desk.scheduler.cancel("b")[1:] == [Stop("w2", "leader", assign.attempt)]


def test_assignments_come_in_portions(desk):
    """So that a long queue does not hold the loop."""
    desk.hello(credit=10)
    for number in range(10):
        desk.admit(f"t{number}")
    assert [type(d) for d in desk.scheduler.assign(desk.now, 4)] == [Assign] * 4
