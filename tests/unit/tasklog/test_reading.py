"""What a reader shows."""

import pytest

from millrace.task.v1.task_pb2 import Outcome
from services.tasklog.core.entries import Delta, Header, Terminal
from services.tasklog.core.reading import GAP, Cursor, End, Restarted, Text, assemble

DONE = Outcome(finish_reason="stop")
OTHER = Outcome(finish_reason="length")


def frame(reader, entry):
    """The live frame of an entry."""
    if isinstance(entry, Terminal):
        return reader.take_frame(entry.attempt, entry.gen, entry.end, entry.end, "", entry.outcome)
    return reader.take_frame(entry.attempt, entry.gen, entry.start, entry.end, entry.text, None)


def shown(events):
    return "".join(event.text for event in events if isinstance(event, Text))


def test_frames_in_order_are_shown_as_they_come():
    """Text, text, end; nothing after the end."""
    reader = Cursor()
    assert frame(reader, Delta(1, 1, 0, 2, "ab")) == [Text(1, 2, "ab")]
    assert frame(reader, Delta(1, 1, 2, 4, "ü")) == [Text(1, 4, "ü")]
    assert frame(reader, Terminal(1, 1, 4, DONE)) == [End(1, 4, DONE)]
    assert reader.ended
    assert frame(reader, Delta(1, 1, 4, 5, "x")) == []
    assert frame(reader, Terminal(1, 1, 4, DONE)) == []
    assert reader.take_log([Delta(2, 2, 0, 1, "x"), Terminal(2, 2, 1, OTHER)]) == []


def test_a_repeated_frame_is_shown_once_and_an_overlapping_one_sliced():
    """Only bytes beyond the reader's own offset count."""
    reader = Cursor()
    frame(reader, Delta(1, 1, 0, 2, "ab"))
    assert frame(reader, Delta(1, 1, 0, 2, "ab")) == []
    assert frame(reader, Delta(1, 1, 1, 4, "bcd")) == [Text(1, 4, "cd")]


def test_a_slice_never_splits_a_code_point():
    """Offsets lie between code points; one that a client made up loses the rest of the code point it cuts."""
    text = "aü🌊z"
    whole = Delta(1, 1, 0, len(text.encode()), text)
    for offset, rest in [(0, text), (1, "ü🌊z"), (3, "🌊z"), (7, "z"), (2, "🌊z"), (5, "z"), (6, "z")]:
        assert frame(Cursor(1, offset), whole) == [Text(1, 8, rest)]
    assert frame(Cursor(1, 8), whole) == []


def test_a_frame_beyond_the_offset_is_a_gap_and_the_log_fills_it():
    """Also when the missing frame was the first."""
    reader = Cursor()
    assert frame(reader, Delta(1, 1, 2, 3, "c")) is GAP
    log = [Header(1, "w", "n", "r"), Delta(1, 1, 0, 2, "ab"), Delta(1, 1, 2, 3, "c")]
    assert reader.take_log(log) == [Text(1, 2, "ab"), Text(1, 3, "c")]
    assert reader.take_log(log) == []


def test_an_end_before_its_text_is_a_gap():
    """The text may have been lost on the way; the log has both."""
    reader = Cursor()
    assert frame(reader, Terminal(1, 1, 2, DONE)) is GAP
    assert reader.take_log([Delta(1, 1, 0, 2, "ab"), Terminal(1, 1, 2, DONE)]) == [Text(1, 2, "ab"), End(1, 2, DONE)]


def test_an_answer_without_text_has_an_end():
    """A cancelled task that never spoke, live or from the log."""
    assert frame(Cursor(), Terminal(1, 1, 0, DONE)) == [End(1, 0, DONE)]
    assert Cursor().take_log([Header(1, "w", "n", "r"), Terminal(1, 1, 0, DONE)]) == [End(1, 0, DONE)]


def test_the_end_waits_for_the_text_before_it():
    """A log read in two halves, the later one first, ends nobody early."""
    reader = Cursor()
    assert reader.take_log([Terminal(1, 1, 2, DONE)]) == []
    assert not reader.ended


def test_the_first_terminal_is_the_end_whatever_follows():
    """A second one, or text after it, is not shown."""
    log = [Delta(1, 1, 0, 1, "a"), Terminal(1, 1, 1, DONE), Delta(2, 1, 1, 2, "b"), Terminal(2, 1, 2, OTHER)]
    assert Cursor().take_log(log) == [Text(1, 1, "a"), End(1, 1, DONE)]


def test_frames_and_entries_of_older_texts_are_ignored():
    """Even where they would connect."""
    reader = Cursor(gen=5, offset=2)
    assert frame(reader, Delta(3, 3, 2, 3, "x")) == []
    assert frame(reader, Terminal(3, 3, 2, DONE)) == []
    assert reader.take_log([Delta(3, 3, 0, 9, "xxxxxxxxx"), Terminal(3, 3, 9, DONE)]) == []


def test_a_client_sees_no_byte_of_a_fenced_attempt_beyond_the_point_where_the_next_one_continued():
    """Frames of attempt 1 that come after one of attempt 2 are ignored, and so are its entries in the log."""
    reader = Cursor()
    frame(reader, Delta(1, 1, 0, 2, "ab"))
    assert frame(reader, Delta(2, 1, 2, 3, "C")) == [Text(1, 3, "C")]
    assert frame(reader, Delta(1, 1, 3, 4, "d")) == []
    assert frame(reader, Delta(1, 1, 2, 9, "cdefghi")) == []
    assert frame(reader, Terminal(1, 1, 3, DONE)) == []
    assert reader.take_log([Delta(1, 1, 0, 2, "ab"), Delta(1, 1, 3, 9, "defghi"), Delta(2, 1, 3, 4, "D")]) == [
        Text(1, 4, "D")
    ]


def test_a_newer_text_restarts_a_reader_that_shows_an_older_one():
    """It is told so before it gets the first byte, and only by the log, which has the text from its start."""
    reader = Cursor()
    frame(reader, Delta(1, 1, 0, 2, "ab"))
    assert frame(reader, Delta(4, 4, 0, 1, "x")) is GAP
    log = [Delta(1, 1, 0, 2, "ab"), Header(4, "w", "n", "r"), Delta(4, 4, 0, 1, "x"), Delta(4, 4, 1, 2, "y")]
    assert reader.take_log(log) == [Restarted(4), Text(4, 1, "x"), Text(4, 2, "y")]
    assert (reader.gen, reader.offset) == (4, 2)


def test_a_reader_that_has_shown_nothing_goes_to_a_newer_text_in_silence():
    """There is nothing to discard."""
    reader = Cursor(gen=1)
    assert frame(reader, Delta(4, 4, 0, 1, "x")) == [Text(4, 1, "x")]
    assert Cursor(gen=1).take_log([Delta(4, 4, 0, 1, "x")]) == [Text(4, 1, "x")]


def test_an_offset_that_belongs_to_no_known_text_restarts():
    """Nobody can say which text a client without a gen has."""
    assert Cursor(gen=0, offset=1).take_log([Delta(4, 4, 0, 2, "xy")]) == [Restarted(4), Text(4, 2, "xy")]


def test_a_reader_ahead_of_a_log_that_forgot_waits_for_the_holder_to_write_again():
    """The whole text of the same gen gives it exactly what it misses."""
    reader = Cursor(gen=1, offset=3)
    assert reader.take_log([Header(1, "w", "n", "A"), Delta(1, 1, 0, 1, "a"), Header(2, "w", "m", "B")]) == []
    whole = Delta(2, 1, 0, 5, "abcde")
    assert reader.take_log([Delta(1, 1, 0, 1, "a"), whole]) == [Text(1, 5, "de")]
    assert frame(Cursor(gen=1, offset=3), whole) == [Text(1, 5, "de")]


@pytest.mark.parametrize("live", range(7))
def test_a_reader_needs_no_entry_at_or_below_after(live):
    """Reading the log above `after` shows what reading all of it shows."""
    log = [
        Header(1, "w", "n", "r"),
        Delta(1, 1, 0, 2, "ab"),
        Delta(1, 1, 2, 4, "cd"),
        Header(2, "w", "m", "r"),
        Delta(2, 1, 4, 6, "ef"),
        Delta(2, 1, 6, 7, "g"),
        Terminal(2, 1, 7, DONE),
    ]
    places = [(1, 0), (1, 2), (1, 4), (2, 0), (2, 6), (2, 7), (2, 2**64 - 1)]
    one, two = Cursor(), Cursor()
    for reader in (one, two):
        for entry in log[:live]:
            if not isinstance(entry, Header):
                frame(reader, entry)
    above = [entry for entry, place in zip(log, places, strict=True) if place > one.after]
    assert one.take_log(above) == two.take_log(log)
    assert one.ended


def test_the_text_of_a_gen_is_put_together_from_overlapping_entries():
    """Other gens are left out, repeated bytes taken once."""
    log = [Delta(1, 1, 0, 3, "aü"), Delta(2, 1, 0, 4, "aüb"), Delta(3, 3, 0, 1, "x"), Delta(4, 1, 3, 5, "bc")]
    assert assemble(log, 1) == "aübc"
    assert assemble(log, 3) == "x"
    assert assemble(log, 9) == ""
