"""Entries as fields of a Redis stream.

A letter for each field, numbers in decimal (Redis keeps small ones in a byte or two), and nothing that the id says already.
Readers ignore fields they do not know, so a newer writer may add some.

| entry | id | fields |
|---|---|---|
| header | `<attempt>-0` | `w` writer, `n` nonce, `r` run id, `f` the task whose log holds the text (only if it follows one) |
| delta | `<attempt>-<end>` | `s` start, `t` text, `g` gen (only if it is not the attempt) |
| terminal | `<attempt>-<max>` | `e` end, `o` Outcome as protobuf, `g` gen (only if it is not the attempt) |
"""

from collections.abc import Sequence
from typing import TypeAlias

from millrace.task.v1.task_pb2 import Outcome
from services.tasklog.core.entries import TERMINAL_SEQUENCE, Delta, Entry, Header, Terminal
from services.tasklog.core.ids import parse_entry_id

Fields: TypeAlias = tuple[str | bytes | int, ...]


def encode(entry: Entry) -> Fields:
    """Names and values in turn, as XADD takes them after the id."""
    if isinstance(entry, Header):
        fields: Fields = ("w", entry.writer, "n", entry.nonce, "r", entry.run_id)
        return (*fields, "f", entry.follows) if entry.follows else fields
    if isinstance(entry, Delta):
        fields = ("s", entry.start, "t", entry.text)
    else:
        fields = ("e", entry.end, "o", entry.outcome.SerializeToString())
    return fields if entry.gen == entry.attempt else (*fields, "g", entry.gen)


def decode(raw_id: bytes, fields: Sequence[bytes]) -> Entry:
    """The entry behind one element of XRANGE's reply. Raises KeyError when a field is missing."""
    attempt, sequence = parse_entry_id(raw_id)
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    if sequence == 0:
        return Header(
            attempt, found[b"w"].decode(), found[b"n"].decode(), found[b"r"].decode(), found.get(b"f", b"").decode()
        )
    gen = int(found.get(b"g", attempt))
    if sequence == TERMINAL_SEQUENCE:
        return Terminal(attempt, gen, int(found[b"e"]), Outcome.FromString(found[b"o"]))
    return Delta(attempt, gen, int(found[b"s"]), sequence, found[b"t"].decode())
