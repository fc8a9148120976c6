"""Replaying a log to a client that is behind: few large pieces instead of many small ones."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from services.tasklog.core.entries import Delta, Terminal
from services.tasklog.core.reading import Event, Text

COMPACT_BYTES = 64 * 1024  # a piece is not larger unless one entry is, so that a slow client is asked again in between


def pieces(text: Sequence[Delta | Terminal], size: int = COMPACT_BYTES) -> Iterator[list[Delta | Terminal]]:
    """Cut one text of a log into runs of at most `size` bytes of text, at least one entry each."""
    piece: list[Delta | Terminal] = []
    length = 0
    for entry in text:
        more = entry.end - entry.start if isinstance(entry, Delta) else 0
        if piece and length + more > size:
            yield piece
            piece, length = [], 0
        piece.append(entry)
        length += more
    if piece:
        yield piece


def merged(events: Sequence[Event]) -> list[Event]:
    """The same with neighbouring texts as one.

    >>> merged([Text(1, 2, "Mi"), Text(1, 5, "llr")])
    [Text(gen=1, offset=5, text='Millr')]
    """
    result: list[Event] = []
    texts: list[str] = []
    for event, following in zip_longest(events, events[1:]):
        if not isinstance(event, Text):
            result.append(event)
            continue
        texts.append(event.text)
        if not isinstance(following, Text):
            result.append(Text(event.gen, event.offset, "".join(texts)))
            texts = []
    return result
