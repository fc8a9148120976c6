"""What the reader of a waiting task is told."""

import pytest

from millrace.task.v1.task_pb2 import PRIORITY_CLASS_STANDARD
from services.dispatcher.core.positions import Standing, standing
from tests.support.scheduling_desk import Desk


def test_a_waiting_task_knows_its_place_and_time():
    """Position in its tenant's queue, seconds until its turn; a follower stands where its leader does."""
    desk = Desk()
    for _ in range(100):
        desk.scheduler.times.learn(PRIORITY_CLASS_STANDARD, 100.0, 2.0)
    desk.hello(credit=1)
    for name in "abcd":
        desk.admit(name)
    desk.admit("twin", joined="d")
    desk.assign()
    place = standing(desk.scheduler, desk.table.get("d"))
    assert (place.state, place.position) == ("queued", 3)
    assert place.eta_s == pytest.approx(3 * 2.0 / 4, rel=0.01)
    assert standing(desk.scheduler, desk.table.get("twin")) == place
    assert standing(desk.scheduler, desk.table.get("a")).state == "running"


def test_nothing_is_said_of_a_task_that_ends():
    """Its end says it all."""
    desk = Desk()
    desk.running()
    desk.finished("t")
    assert standing(desk.scheduler, desk.table.get("t")) is None


def test_only_news_is_told():
    """Another position or state, or a waiting time that changed by more than a tenth and a second."""
    shown = Standing("queued", 4, 30.0)
    assert shown.differs(None)
    assert not Standing("queued", 4, 32.9).differs(shown)
    assert Standing("queued", 4, 33.1).differs(shown)
    assert Standing("queued", 3, 30.0).differs(shown)
    assert Standing("running", 4, 30.0).differs(shown)
    assert not Standing("queued", 1, 0.9).differs(Standing("queued", 1, 0.0))
