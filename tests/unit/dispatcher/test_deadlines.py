"""Whose deadline passes next."""

from services.dispatcher.core.deadlines import Deadlines


def test_a_deadline_is_named_once_and_never_early():
    """A tenth of a second late at most."""
    deadlines = Deadlines(100.0)
    deadlines.add("a", 100.25)
    assert deadlines.passed(100.24) == []
    assert deadlines.passed(100.35) == ["a"]
    assert deadlines.passed(200.0) == []


def test_who_left_is_not_named():
    """Most tasks leave long before their deadline."""
    deadlines = Deadlines(0.0)
    deadlines.add("a", 5.0)
    deadlines.add("b", 5.0)
    deadlines.discard("a", 5.0)
    assert deadlines.passed(6.0) == ["b"]


def test_a_deadline_in_the_past_is_named_at_the_next_look():
    """However long ago it was, and after a long pause."""
    deadlines = Deadlines(1000.0)
    deadlines.add("old", 3.0)
    assert deadlines.passed(1000.0) == ["old"]
    deadlines.add("a", 1001.0)
    deadlines.add("b", 90000.0)
    assert deadlines.passed(90000.5) == ["a", "b"]


def test_no_deadline_never_passes():
    """Discarding what is not there is nothing."""
    deadlines = Deadlines(0.0)
    deadlines.discard("a", 5.0)
    assert deadlines.passed(1e6) == []
