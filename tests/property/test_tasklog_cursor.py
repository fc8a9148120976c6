"""A reader's cursor, for any text, any cutting of it and any fate of its frames."""

from hypothesis import given
from hypothesis import strategies as st

from millrace.task.v1.task_pb2 import Outcome
from services.tasklog.core.entries import Delta, Terminal
from services.tasklog.core.reading import GAP, Cursor, End, Text, assemble

DONE = Outcome(finish_reason="stop")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def logs(draw):
    """A text and the log of it: attempts follow each other, some write again what was there."""
    text, entries, place, attempt = draw(texts), [], 0, 1
    while place < len(text):
        if place and draw(st.booleans()):
            attempt += 1
        since = draw(st.sampled_from([place, place, 0]))
        until = draw(st.integers(place + 1, len(text)))
        start, end = len(text[:since].encode()), len(text[:until].encode())
        if since < place:
            attempt += 1  # a whole text is written again by a new attempt
        entries.append(Delta(attempt, 1, start, end, text[since:until]))
        place = until
    return text, [*entries, Terminal(attempt, 1, len(text.encode()), DONE)]


def frame(entry):
    if isinstance(entry, Terminal):
        return entry.attempt, entry.gen, entry.end, entry.end, "", entry.outcome
    return entry.attempt, entry.gen, entry.start, entry.end, entry.text, None


@given(logs(), st.data())
def test_every_reader_gets_every_byte_once_and_one_end(log, data):
    """Frames lost, repeated, out of order; the log read on each gap and at last: offsets say what was shown."""
    text, entries = log
    reader, shown, ends = Cursor(), "", 0
    arriving = data.draw(st.lists(st.integers(0, len(entries) - 1), max_size=2 * len(entries)))
    for place in [*arriving, None]:
        events = GAP if place is None else reader.take_frame(*frame(entries[place]))
        logged = entries if place is None else entries[: max(arriving) + 1]
        for event in reader.take_log(logged) if events is GAP else events:
            assert not ends, "something after the end"
            if isinstance(event, Text):
                shown += event.text
            ends += isinstance(event, End)
            assert event.offset == len(shown.encode())
    assert shown == text
    assert ends == 1


@given(logs(), st.integers(0, 200))
def test_a_reader_that_comes_back_gets_the_rest_from_any_offset(log, offset):
    """What it held and what it gets make the text; an offset inside a code point loses that code point, no other."""
    text, entries = log
    raw = text.encode()
    offset = min(offset, len(raw))
    reader = Cursor(1, offset)
    rest = "".join(event.text for event in reader.take_log(entries) if isinstance(event, Text))
    assert rest == raw[offset:].decode(errors="ignore")
    assert reader.ended


@given(logs())
def test_the_log_put_together_is_the_text(log):
    """Whoever assembles it, a reader or the end routine."""
    text, entries = log
    assert assemble(entries, 1) == text
