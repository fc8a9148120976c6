"""Entries as fields of a Redis stream."""

import pytest

from millrace.task.v1.task_pb2 import OUTCOME_KIND_COMPLETED, Outcome, Usage
from services.tasklog.core.codec import decode, encode
from services.tasklog.core.entries import TERMINAL_SEQUENCE, Delta, Header, Terminal

ATTEMPT = (1_764_000_000_000 << 20) + 3
OUTCOME = Outcome(kind=OUTCOME_KIND_COMPLETED, finish_reason="stop", usage=Usage(completion_tokens=7))

ENTRIES = [
    (Header(ATTEMPT, "worker-1", "nonce", "run"), 0),
    (Header(ATTEMPT, "dispatcher-1", "nonce", "run", follows="twin"), 0),
    (Delta(ATTEMPT, ATTEMPT, 0, 7, "Grüße"), 7),
    (Delta(ATTEMPT, 5, 7, 11, "🌊"), 11),
    (Terminal(ATTEMPT, ATTEMPT, 11, OUTCOME), TERMINAL_SEQUENCE),
    (Terminal(ATTEMPT, 5, 0, Outcome()), TERMINAL_SEQUENCE),
]


def as_redis_gives_it(fields):
    return [field if isinstance(field, bytes) else str(field).encode() for field in fields]


@pytest.mark.parametrize(("entry", "sequence"), ENTRIES)
def test_an_entry_survives_the_stream(entry, sequence):
    """Whatever was written is what is read."""
    assert decode(b"%d-%d" % (ATTEMPT, sequence), as_redis_gives_it(encode(entry))) == entry


@pytest.mark.parametrize(("entry", "sequence"), ENTRIES)
def test_fields_of_a_newer_writer_are_ignored(entry, sequence):
    """An older reader goes on during an upgrade."""
    fields = [b"new", b"\xff\xfe", *as_redis_gives_it(encode(entry))]
    assert decode(b"%d-%d" % (ATTEMPT, sequence), fields) == entry


def test_the_gen_of_a_first_attempt_is_not_written():
    """Most texts are written by the attempt that began them, and the id says which that was."""
    assert encode(Delta(9, 9, 0, 2, "Hi")) == ("s", 0, "t", "Hi")
    assert encode(Delta(9, 8, 2, 4, "Hi")) == ("s", 2, "t", "Hi", "g", 8)
