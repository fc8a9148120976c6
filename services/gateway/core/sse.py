"""Server-sent events (WHATWG HTML, section 9.2): framing, and cursors as event ids."""

from services.chassis.errors import Problem
from services.gateway.core.submission import invalid
from services.tasklog.core.ids import parse_gen

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


def event(name: str, data: bytes, event_id: str = "") -> bytes:
    r"""One event. JSON has no line breaks of its own, so the data is one line.

    >>> event("delta", b'{"t":"delta"}', "g1:5")
    b'event: delta\nid: g1:5\ndata: {"t":"delta"}\n\n'
    """
    identity = f"id: {event_id}\n" if event_id else ""
    return f"event: {name}\n{identity}data: ".encode() + data + b"\n\n"


def data(payload: bytes) -> bytes:
    """One event without a name, as OpenAI streams have it."""
    return b"data: " + payload + b"\n\n"


def parse_cursor(last_event_id: str) -> tuple[str, int] | Problem:
    """(gen, offset) of a `Last-Event-ID`.

    >>> parse_cursor("g1:5"), parse_cursor("")
    (('g1', 5), ('', 0))
    """
    if not last_event_id:
        return "", 0
    gen, colon, offset = last_event_id.rpartition(":")
    try:
        parse_gen(gen)
    except ValueError:
        colon = ""
    if not colon or not (offset.isascii() and offset.isdigit()) or len(offset) > 15:
        return invalid("Last-Event-ID", "must be <gen>:<offset> as it was sent")
    return gen, int(offset)
