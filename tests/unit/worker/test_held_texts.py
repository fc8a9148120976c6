"""Texts that a worker may log again."""

from services.worker.core.answer import Answer
from services.worker.core.held_texts import HeldTexts


def holding(attempt: int = 5) -> tuple[HeldTexts, Answer]:
    held, answer = HeldTexts(), Answer(attempt)
    held.hold("t1", answer)
    return held, answer


def test_a_text_goes_on_under_an_attempt_that_followed_its_own() -> None:
    """The grant gives the answer its new attempt."""
    held, answer = holding(5)
    assert held.grant("t1", 6, previous=5) is answer
    assert answer.attempt == 6


def test_a_text_is_dropped_when_somebody_else_came_in_between() -> None:
    """Whoever held the attempt before may have written: the text is worth nothing, now and later."""
    held, _ = holding(5)
    assert held.grant("t1", 7, previous=6) is None
    assert held.grant("t1", 8, previous=5) is None
    assert len(held) == 0


def test_a_task_that_is_not_held_has_no_grant() -> None:
    """A fresh worker starts from the log."""
    assert HeldTexts().grant("t1", 2, previous=1) is None


def test_a_running_text_is_never_forgotten() -> None:
    """Only an acknowledged end sets a time."""
    held, _ = holding()
    assert held.forget(1e12) == []
    assert len(held) == 1


def test_an_ended_text_is_forgotten_at_its_time() -> None:
    """Not before; and the oldest first."""
    held, _ = holding()
    held.hold("t2", Answer(6))
    held.keep_until("t1", 10.0)
    held.keep_until("t2", 11.0)
    assert held.forget(9.9) == []
    assert held.forget(10.0) == ["t1"]
    assert [task for task, _ in held.all()] == ["t2"]


def test_a_text_that_is_granted_again_is_kept_again() -> None:
    """Its end is not durable after all."""
    held, _ = holding(5)
    held.keep_until("t1", 10.0)
    held.grant("t1", 6, previous=5)
    assert held.forget(99.0) == []
