"""When an end may be counted as finished."""

from services.dispatcher.core.commit_horizon import CommitHorizon


def test_an_end_is_due_after_the_horizon_and_once():
    """In the order of the ends."""
    horizon = CommitHorizon(2.0)
    horizon.ended("a", 1, now=10.0)
    horizon.ended("b", 7, now=10.5)
    assert not horizon.ready(11.9)
    assert horizon.due(11.9) == []
    assert horizon.ready(12.0)
    assert horizon.due(12.0) == [("a", 1)]
    assert horizon.due(13.0) == [("b", 7)]
    assert len(horizon) == 0
