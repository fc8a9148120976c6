"""Attempts: numbers, failures and failovers."""

from services.dispatcher.core.attempts import History, epoch_of, next_attempt


def test_numbers_grow_within_and_across_owners():
    """No two owners give the same number; a higher epoch outranks every attempt of a lower one."""
    first = next_attempt(0, 7)
    assert first == (7 << 20) + 1
    assert next_attempt(first, 7) == first + 1
    assert next_attempt(first, 8) == (8 << 20) + 1
    assert epoch_of(next_attempt(first, 8)) == 8


def test_a_number_is_never_below_one_that_was_seen():
    """An owner whose clock was set back outranks the log's head all the same."""
    assert next_attempt((9 << 20) + 5, 8) == (9 << 20) + 6


def test_failures_are_counted_until_the_limit():
    """The last failure is the reason."""
    history = History()
    history.failed("w1", "no")
    history.failed("w2", "again no")
    assert history.give_up(3) == ""
    history.failed("w1", "never")
    assert history.give_up(3) == "failed 3 times, last at w1: never"


def test_losing_its_worker_does_not_count_unless_the_task_took_it_down_twice_in_a_row():
    """Twice without a token in between is a pattern; getting further breaks it."""
    history = History()
    history.lost("w1", started=True, got_further=False)
    history.lost("w2", started=True, got_further=True)
    history.lost("w1", started=False, got_further=False)
    history.lost("w2", started=True, got_further=False)
    assert history.give_up(3) == ""
    history.lost("w1", started=True, got_further=False)
    assert history.give_up(3) == "took its worker down 2 times in a row"
    assert len(history.lines) == 5
