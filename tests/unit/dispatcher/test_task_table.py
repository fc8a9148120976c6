"""The tasks of a pool: deadlines, twins, charges."""

import pytest

from millrace.task.v1.task_pb2 import OUTCOME_KIND_CANCELLED, OUTCOME_KIND_EXPIRED, PRIORITY_CLASS_STANDARD
from services.dispatcher.core.decisions import Echo, End, FindLeader, Follow, Stop
from services.dispatcher.core.task_state import Stage, Trace
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


def test_a_cancelled_leader_that_never_began_leaves_its_place_to_a_follower(desk):
    """Nobody has seen a word of it: it ends at once, one follower is first in its queue, the others follow that one."""
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


def test_a_leader_with_followers_is_cancelled_only_when_all_are(desk):
    """Its followers show the text that it makes: it goes on for them until the last one is cancelled too."""
    desk.running("leader")
    for twin in "bc":
        desk.admit(twin, joined="leader")
    assert desk.scheduler.cancel("leader") == []
    assert [type(d) for d in desk.scheduler.cancel("b")] == [End]
    assert desk.scheduler.cancel("leader") == []  # said again
    ends, stop = desk.scheduler.cancel("c")
    assert (ends.state.id, ends.kind) == ("c", OUTCOME_KIND_CANCELLED)
    assert stop == Stop("w1", "leader", FIRST)


def test_a_leader_that_is_not_cancelled_outlives_its_followers(desk):
    """Only the wish for itself counts."""
    desk.running("leader")
    desk.admit("b", joined="leader")
    (end,) = desk.scheduler.cancel("b")
    assert end.state.id == "b"


def test_the_last_follower_may_leave_by_its_deadline(desk):
    """Then nobody is left who wants the answer."""
    desk.running("leader")
    desk.admit("b", joined="leader", deadline=desk.now + 1)
    assert desk.scheduler.cancel("leader") == []
    assert [type(d) for d in desk.table.expire(desk.now + 1.2)] == [End, Stop]


def test_a_cancelled_leader_that_goes_on_gives_its_followers_its_answer(desk):
    """It ends as if nobody had wished otherwise."""
    desk.running("leader")
    desk.admit("b", joined="leader")
    desk.scheduler.cancel("leader")
    (close,) = desk.finished("leader")
    assert close.answered
    assert [(type(d), d.state.id) for d in desk.table.closed(close.state, desk.now, answered=True)] == [(Echo, "b")]


def test_a_cancelled_leader_whose_attempt_is_over_goes_on_for_its_followers(desk):
    """Another attempt continues the text that they show; with the last of them it ends where it waits."""
    desk.running("leader")
    desk.admit("b", joined="leader")
    desk.scheduler.cancel("leader")
    desk.finished("leader", handed_back=True)
    assert desk.stage("leader") is Stage.WAITING
    assert [(d.state.id, d.kind) for d in desk.scheduler.cancel("b")] == [
        ("b", OUTCOME_KIND_CANCELLED),
        ("leader", OUTCOME_KIND_CANCELLED),
    ]


def test_a_cancelled_task_does_not_go_on_for_nobody(desk):
    """Its attempt was lost before the worker heard of the cancel: it ends here, with the text that is logged."""
    desk.running("t")
    desk.scheduler.cancel("t")
    *_, end = desk.finished("t", handed_back=True)
    assert (end.state.id, end.kind) == ("t", OUTCOME_KIND_CANCELLED)
    assert desk.assign() == []


@pytest.mark.parametrize("late", [False, True])
def test_a_wish_waits_until_the_followers_are_known(late):
    """After a takeover a worker may tell of it before their records are read; in a long queue nobody waits for all of them."""
    desk = Desk(caught_up=False)
    desk.hello(running={"leader": FIRST, "alone": FIRST + 1})
    desk.admit("leader", trace=Trace(FIRST, 1), expecting=True)
    desk.admit("alone", trace=Trace(FIRST + 1, 1), expecting=True)
    assert desk.scheduler.cancel("leader") == desk.scheduler.cancel("alone") == []
    desk.admit("b", joined="leader", trace=Trace(FIRST, 0, "leader"), expecting=True)
    known = desk.scheduler.stop_expecting if late else desk.scheduler.catch_up
    assert known() == [Stop("w1", "alone", FIRST + 1)]
    assert [type(d) for d in desk.scheduler.cancel("b")] == [End, Stop]


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
