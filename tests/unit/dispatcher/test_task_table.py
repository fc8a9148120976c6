"""The tasks of a pool: deadlines, twins, charges."""

import pytest

from millrace.task.v1.task_pb2 import OUTCOME_KIND_EXPIRED, PRIORITY_CLASS_STANDARD
from services.dispatcher.core.decisions import Echo, FindLeader, Follow
from services.dispatcher.core.task_state import Stage
from tests.support.scheduling_desk import FIRST, Desk


@pytest.fixture
def desk():
    return Desk()


def test_a_deadline_that_passes_ends_a_waiting_task(desk):
    """Also without any worker, also at admission; a running one is its worker's business."""
    desk.admit("waits", deadline=desk.now + 1)
    assert [(d.state.id, d.kind) for d in desk.admit("late", deadline=desk.now - 1)] == [("late", OUTCOME_KIND_EXPIRED)]
    assert [d.state.id for d in desk.table.expire(desk.now + 1.2)] == ["waits"]
    desk.hello()
    desk.admit("runs", deadline=desk.now + 1)
    desk.assign()
    assert desk.table.expire(desk.now + 2) == []


def test_a_follower_waits_for_its_leaders_answer(desk):
    """It takes no slot; its attempt outranks the leader's, whose text it repeats."""
    leader = desk.running("leader")
    (follow,) = desk.admit("twin", joined="leader")
    assert follow == Follow(desk.table.get("twin"), FIRST + 1, "leader")
    desk.scheduler.credit(desk.worker(), 1)
    assert desk.assign() == []
    (close,) = desk.finished("leader")
    (echo,) = desk.table.closed(close.state, desk.now, answered=True)
    assert isinstance(echo, Echo)
    assert echo.leader == "leader"
    assert echo.attempt > leader.attempt
    assert [type(d) for d in desk.admit("late twin", joined="leader")] == [Echo]


def test_one_follower_leads_when_there_is_no_answer(desk):
    """It is first in its queue, the others follow it."""
    desk.admit("leader")
    desk.admit("b", joined="leader")
    desk.admit("c", joined="leader")
    desk.admit("d", joined="b")
    (end,) = desk.scheduler.cancel("leader")
    follows = desk.table.closed(end.state, desk.now, answered=False)
    assert [(f.state.id, f.leader) for f in follows] == [("c", "b"), ("d", "b")]
    desk.hello()
    (assign,) = desk.assign()
    assert assign.state.id == "b"
    assert assign.attempt > end.attempt


def test_a_cancelled_follower_leaves_alone(desk):
    """Its leader and mates go on."""
    desk.running("leader")
    desk.admit("b", joined="leader")
    desk.admit("c", joined="leader")
    (end,) = desk.scheduler.cancel("b")
    assert end.state.id == "b"
    assert desk.table.followers.of("leader") == ("c",)


@pytest.mark.parametrize(
    ("answered", "to_come", "expected"),
    [(True, False, Stage.ENDING), (False, True, Stage.FOLLOWING), (False, False, Stage.WAITING)],
)
def test_a_leader_that_is_not_known_here_is_looked_for(desk, answered, to_come, expected):
    """It ended with an answer, its record is still to come, or it is gone and the follower runs."""
    (find,) = desk.admit("twin", joined="leader")
    assert find == FindLeader(desk.table.get("twin"), "leader")
    desk.table.leader_found(find.state, "leader", desk.now, answered=answered, to_come=to_come)
    assert desk.stage("twin") is expected


def test_a_leader_that_never_comes_is_not_waited_for_long(desk):
    """After five seconds its follower runs."""
    (find,) = desk.admit("twin", joined="leader")
    desk.table.leader_found(find.state, "leader", desk.now, answered=False, to_come=True)
    desk.table.expire(desk.now + 4.9)
    assert desk.stage("twin") is Stage.FOLLOWING
    desk.table.expire(desk.now + 5.0)
    assert desk.stage("twin") is Stage.WAITING


def test_tokens_served_are_what_a_tenant_is_charged(desk):
    """The end settles the estimate: what was not used comes back."""
    desk.running("a")
    tenant = desk.table.queue._classes[PRIORITY_CLASS_STANDARD].tenants["anna"]
    assert tenant.turn == 100
    desk.scheduler.started("a", FIRST, 10, 0.0)
    desk.scheduler.progress("a", FIRST, 60)
    assert tenant.turn == 10 + 2 * 60
    desk.finished("a")
    assert tenant.turn == 10 + 2 * 5
