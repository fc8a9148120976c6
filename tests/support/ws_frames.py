"""Frames as a client sends them, with every rule breakable on purpose; and a plain echo server over the sans-I/O core."""

from services.gateway.core.ws_frames import (
    BINARY,
    PONG,
    TEXT,
    Failed,
    encode_frame,
    encode_text,
    unmask,
)
from services.gateway.core.ws_protocol import Binary, Close, Event, Ping, ServerProtocol, Text

MASK = b"\x1f\xa2\x00\x7c"


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    reserved: int = 0,
    mask: bytes | None = MASK,
    length_bytes: int = 0,
    length: int | None = None,
) -> bytes:
    """One frame. `length_bytes` 2 or 8 forces that form of the length; `length` lies about it; `mask=None` leaves it bare."""
    size = len(payload) if length is None else length
    bit = 0x80 if mask is not None else 0
    form = length_bytes or (0 if size < 126 else 2 if size < 0x10000 else 8)
    head = bytes((opcode | (0x80 if final else 0) | reserved << 4,))
    head += (
        bytes((bit | size,)) if not form else bytes((bit | (126 if form == 2 else 127),)) + size.to_bytes(form, "big")
    )
    if mask is None:
        return head + payload
    masked = bytearray(payload)
    unmask(mask, masked)
    return head + mask + bytes(masked)


class EchoServer:
    """What an endpoint under a conformance suite does: echoes messages, answers pings and closes."""

    def __init__(self, max_message: int = 1 << 24) -> None:
        self.protocol = ServerProtocol(max_message)
        self.events: list[Event] = []
        self.dropped = False

    def feed(self, data: bytes) -> bytes:
        """The bytes the server writes in answer to these."""
        written = b""
        for event in self.protocol.feed(data):
            self.events.append(event)
            match event:
                case Text(payload):
                    written += encode_text(payload)
                case Binary(payload):
                    written += encode_frame(BINARY, payload)
                case Ping(payload):
                    written += encode_frame(PONG, payload)
                case Close(code, _):
                    written += self.protocol.close(code)
                    self.dropped = True
                case Failed(code, reason):
                    written += self.protocol.close(code, reason)
                    self.dropped = True
        return written


def text_frames(*pieces: bytes) -> bytes:
    """One text message in as many frames."""
    last = len(pieces) - 1
    return b"".join(client_frame(0 if i else TEXT, piece, final=i == last) for i, piece in enumerate(pieces))
