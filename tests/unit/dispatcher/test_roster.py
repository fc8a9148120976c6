"""Which workers are there."""

from services.dispatcher.core.roster import Roster


def attach(roster, name, *, boot=1, stream=1, now=0.0, credit=0, **more):
    worker, replaced = roster.hello(name, boot, stream, 4, now, **more)
    worker.credits = credit
    return worker, replaced


def test_the_worker_with_the_most_credits_is_next():
    """Unless one is preferred that can take it; the one to avoid comes last."""
    roster = Roster()
    attach(roster, "a", credit=1)
    attach(roster, "b", credit=3)
    attach(roster, "c", credit=0)
    assert roster.free().name == "b"
    assert roster.free(prefer="a").name == "a"
    assert roster.free(prefer="c").name == "b"
    assert roster.free(avoid="b").name == "a"
    roster.get("a").credits = 0
    assert roster.free(avoid="b").name == "b"
    roster.get("b").credits = 0
    assert roster.free() is None


def test_a_new_stream_voids_the_credits_of_the_old_one():
    """And what the old stream still does is nobody's business."""
    roster = Roster()
    worker, _ = attach(roster, "a", stream=1, credit=4)
    again, replaced = attach(roster, "a", stream=2, now=1.0)
    assert again is worker
    assert replaced is None
    roster.broke("a", stream=1, now=1.5)
    assert worker.connected
    roster.broke("a", stream=2, now=2.0)
    assert not worker.connected


def test_a_new_process_replaces_the_old_one_at_once():
    """Its tasks are lost with it, without waiting for its silence."""
    roster = Roster()
    old, _ = attach(roster, "a", boot=1)
    new, replaced = attach(roster, "a", boot=2, stream=2)
    assert replaced is old
    assert roster.get("a") is new


def test_silence_and_broken_streams_lose_a_worker_after_three_seconds():
    """A heartbeat or a new stream in time keeps it."""
    roster = Roster()
    silent, _ = attach(roster, "silent")
    broken, _ = attach(roster, "broken")
    alive, _ = attach(roster, "alive")
    broken.heard_at = alive.heard_at = 2.5
    roster.broke("broken", 1, 3.0)
    assert roster.lost(3.0) == []
    assert roster.lost(3.1) == [silent]
    alive.heard_at = 5.0
    assert roster.lost(6.1) == [broken]
    assert [w.name for w in roster] == ["alive"]


def test_slots_count_who_takes_work():
    """Draining workers and broken streams do not."""
    roster = Roster()
    attach(roster, "a")[0].running["t"] = 1
    attach(roster, "b", draining=True)
    attach(roster, "c")
    roster.broke("c", 1, 0.0)
    assert (roster.slots, roster.active, roster.busy, len(roster)) == (4, 1, 1, 3)
