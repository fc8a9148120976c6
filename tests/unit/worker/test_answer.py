"""The text of a task as its worker holds it."""

from millrace.task.v1.task_pb2 import Outcome
from services.tasklog.core.entries import Delta, Terminal
from services.worker.core.answer import Answer


def begun(gen: int = 7, text: str = "") -> Answer:
    answer = Answer(attempt=7)
    answer.begin(gen, text)
    return answer


def test_offsets_count_bytes_of_utf8() -> None:
    """A delta ends where its text ends in UTF-8, whatever its characters."""
    answer = begun()
    answer.take("é🌊")
    assert answer.delta() == Delta(7, 7, 0, 6, "é🌊")


def test_a_continued_text_goes_on_at_its_offset() -> None:
    """The first delta of a continuation starts where the earlier attempt's text ends, under its gen."""
    answer = begun(gen=3, text="naïve ")
    answer.take("art")
    assert answer.delta() == Delta(7, 3, 7, 10, "art")
    assert answer.text == "naïve art"


def test_a_delta_that_was_not_written_grows() -> None:
    """Asked for again, a delta begins where it began and has what was taken since."""
    answer = begun()
    answer.take("one ")
    answer.delta()
    answer.take("two ")
    assert answer.delta() == Delta(7, 7, 0, 8, "one two ")


def test_text_taken_while_a_delta_is_written_comes_in_the_next() -> None:
    """Nothing is lost or repeated between asking for a delta and hearing that it is written."""
    answer = begun()
    answer.take("one ")
    delta = answer.delta()
    assert delta
    answer.take("two ")
    answer.written(delta)
    assert answer.delta() == Delta(7, 7, 4, 8, "two ")


def test_a_text_is_logged_again_from_the_start() -> None:
    """After Redis forgot, the next delta is the whole text under the new attempt, and later ones go on from its end."""
    answer = begun()
    answer.take("one ")
    first = answer.delta()
    assert first
    answer.written(first)
    answer.take("two ")
    answer.attempt = 9
    answer.log_again()
    whole = answer.delta()
    assert whole == Delta(9, 7, 0, 8, "one two ")
    answer.written(whole)
    answer.take("three")
    assert answer.delta() == Delta(9, 7, 8, 13, "three")


def test_an_ended_text_takes_nothing_more() -> None:
    """What the engine still says after the end is nobody's."""
    answer = begun()
    answer.take("all")
    answer.outcome = Outcome(finish_reason="stop")
    answer.take(" and more")
    assert answer.text == "all"
    assert answer.terminal(3) == Terminal(7, 7, 3, Outcome(finish_reason="stop"))


def test_an_empty_piece_makes_no_delta() -> None:
    """Engines may give tokens without text."""
    answer = begun()
    answer.take("")
    assert answer.delta() is None
    assert answer.nothing() == Delta(7, 7, 0, 0, "")
