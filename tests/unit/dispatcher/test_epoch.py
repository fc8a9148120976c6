"""Which epoch a new owner takes."""

from services.dispatcher.core.epoch import next_epoch


def test_an_epoch_lies_above_everything_that_is_known():
    """The stored one, the one workers report, and the clock in milliseconds."""
    assert next_epoch(stored=10, reported=3, now_s=0.0) == 11
    assert next_epoch(stored=3, reported=10, now_s=0.0) == 11
    assert next_epoch(stored=3, reported=10, now_s=1.5) == 1500
