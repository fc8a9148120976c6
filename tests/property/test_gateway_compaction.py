"""What must hold of any log and any request: replaying a log compacted shows the same bytes as replaying it entry by entry."""

from hypothesis import given
from hypothesis import strategies as st

from millrace.task.v1.task_pb2 import Outcome
from services.gateway.core.canonical import canonical_request
from services.gateway.core.compaction import merged, pieces
from services.gateway.core.submission import ChatMessage, Submission, SubmitFields, check
from services.tasklog.core.entries import Delta, Terminal
from services.tasklog.core.reading import Cursor, End, Event, Text

texts = st.lists(st.text(min_size=1, max_size=30), max_size=30)


def log_of(parts: list[str]) -> list[Delta | Terminal]:
    entries: list[Delta | Terminal] = []
    offset = 0
    for part in parts:
        end = offset + len(part.encode())
        entries.append(Delta(5, 5, offset, end, part))
        offset = end
    return [*entries, Terminal(5, 5, offset, Outcome())]


def shown(events: list[Event]) -> tuple[str, int, bool]:
    text = "".join(event.text for event in events if isinstance(event, Text))
    last = events[-1]
    return text, getattr(last, "offset", 0), isinstance(last, End)


@given(texts, st.integers(1, 64), st.data())
def test_pieces_and_merging_change_no_byte(parts: list[str], size: int, data: st.DataObject) -> None:
    """Cut into pieces and merged, a log shows the same text, the same last offset and one end, to a reader from any offset on.

    No piece is larger than it must be.
    """
    log = log_of(parts)
    cut = list(pieces(log, size))
    seen = data.draw(st.sampled_from([0, *(e.end for e in log if isinstance(e, Delta))]))
    cursor = Cursor(5, seen)
    compacted = [event for piece in cut for event in merged(cursor.take_log(piece))]
    assert shown(compacted) == shown(Cursor(5, seen).take_log(log))
    for piece in cut:
        assert len(piece) == 1 or sum(e.end - e.start for e in piece if isinstance(e, Delta)) <= size


turns = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(min_size=1, max_size=5)), min_size=1, max_size=3
)


def asked(messages: list[tuple[str, str]], stop: list[str]) -> Submission:
    submission = check(SubmitFields(model="m", input=[ChatMessage(r, c) for r, c in messages], stop=stop))  # type: ignore[arg-type]
    assert isinstance(submission, Submission)
    return submission


@given(turns, turns, st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_different_requests_have_different_canonical_forms(
    one: list[tuple[str, str]], two: list[tuple[str, str]], stop: list[str]
) -> None:
    """No way of splitting the same letters over roles, turns and stop strings gives the same form."""
    forms = {canonical_request(asked(messages, stop), 5) for messages in (one, two)}
    assert (len(forms) == 1) == (one == two)
