"""What of an event is new to a reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.client.core.cursor import GapError, ReaderCursor
from services.client.core.events import Delta, Done, Restarted, Status

TEXT = "träume 水 and 🌊 mills"


def delta(start: int, end: int, gen: str = "g", text: str = TEXT) -> Delta:
    """Characters `start` to `end` of the text."""
    return Delta(task="t", gen=gen, offset=len(text[:end].encode()), text=text[start:end])


def test_text_at_the_cursor_is_new_and_moves_it() -> None:
    """The cursor is the name of the text and the bytes of it that were seen."""
    cursor = ReaderCursor()
    assert cursor.take(delta(0, 5)) == delta(0, 5)
    assert (cursor.gen, cursor.offset) == ("g", len(TEXT[:5].encode()))


def test_text_that_was_seen_is_dropped_or_cut() -> None:
    """What overlaps is cut at the cursor's byte, what lies before it is nothing new."""
    cursor = ReaderCursor()
    cursor.take(delta(0, 8))
    assert cursor.take(delta(2, 6)) is None
    assert cursor.take(delta(4, 12)) == delta(8, 12)


def test_missing_text_is_a_gap() -> None:
    """Text beyond the cursor, another text without a word, an end beyond the cursor: read again."""
    cursor = ReaderCursor()
    cursor.take(delta(0, 4))
    for event in (delta(6, 8), delta(0, 4, gen="h"), Done(task="t", gen="g", offset=99, outcome="completed")):
        with pytest.raises(GapError):
            cursor.take(event)
    assert cursor.take(delta(4, 6)) == delta(4, 6)


def test_a_restart_begins_the_new_text_at_zero() -> None:
    """After `Restarted` the text of the new name is taken from its first byte."""
    cursor = ReaderCursor("g", 7)
    cursor.take(Restarted(task="t", gen="h"))
    assert cursor.take(delta(0, 3, gen="h")) == delta(0, 3, gen="h")


def test_what_carries_no_text_passes() -> None:
    """Status and an end at the cursor are passed on as they are."""
    cursor = ReaderCursor("g", 7)
    status, done = Status(task="t", state="queued"), Done(task="t", gen="g", offset=7, outcome="completed")
    assert (cursor.take(status), cursor.take(done)) == (status, done)


@given(st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, len(TEXT)))))
def test_any_deltas_without_a_gap_give_the_text_once(spans: list[tuple[int, int]]) -> None:
    """Repeated, overlapping and stale deltas, in any order: every byte is taken once and in order."""
    cursor, seen = ReaderCursor(), ""
    for start, end in [*spans, (0, len(TEXT))]:
        try:
            new = cursor.take(delta(min(start, end), max(start, end)))
        except GapError:
            continue
        seen += new.text if isinstance(new, Delta) else ""
        assert TEXT.startswith(seen)
        assert cursor.offset == len(seen.encode())
    assert seen == TEXT
