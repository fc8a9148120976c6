"""RFC 6455 after the upgrade, server side, without I/O: bytes in, events out.

Every event is decided by the bytes so far, never by how the network cut them. A text message is checked as its bytes
come, so bad UTF-8 or a message above the limit ends the connection at once and not when the frame is complete.
An idle protocol holds nothing but empty slots: 10,000 of them are 1 MB.
"""

import codecs
from dataclasses import dataclass
from typing import Final, TypeAlias

from services.gateway.core.ws_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    CloseCode,
    Failed,
    Head,
    Unmask,
    encode_close,
    parse_close,
    read_head,
    unmask,
)

_new_utf8_check = codecs.getincrementaldecoder("utf-8")
_NO_BYTES: Final = b""
_NOT_UTF8: Final = Failed(CloseCode.INVALID_DATA, "text is not UTF-8")


@dataclass(frozen=True, slots=True)
class Text:
    """A whole text message, checked to be UTF-8 and left as bytes: who reads JSON wants bytes."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Binary:
    """A whole binary message."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer with a pong of the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer is alive."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer closes: send `close(code)` unless we closed first, then drop the connection."""

    code: int
    reason: str


Event: TypeAlias = Text | Binary | Ping | Pong | Close | Failed


class _Message:
    """A message or control frame whose bytes are still coming."""

    __slots__ = ("check", "opcode", "payload")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.payload = bytearray()
        self.check = _new_utf8_check() if opcode == TEXT else None

    def add(self, piece: bytearray, last: bool) -> bool:
        """Take a piece; False when the text so far cannot be UTF-8 any more."""
        self.payload += piece
        if self.check is not None:
            try:
                self.check.decode(piece, last)
            except UnicodeDecodeError:
                return False
        return True


class _Frame:
    """A frame whose head was read: `left` payload bytes are missing, `mask` is turned to the next of them."""

    __slots__ = ("final", "left", "mask", "message")

    def __init__(self, head: Head, message: _Message) -> None:
        self.final = head.final
        self.left = head.length
        self.mask = head.mask
        self.message = message


class ServerProtocol:
    """One connection. After `Close` or `Failed` it reads nothing more.

    >>> protocol = ServerProtocol(max_message=1024)
    >>> protocol.feed(bytes.fromhex("8182000000006869"))
    [Text(payload=b'hi')]
    """

    __slots__ = ("_close_sent", "_ended", "_frame", "_head", "_max_message", "_message", "_unmask")

    def __init__(self, max_message: int, unmask: Unmask = unmask) -> None:
        self._max_message = max_message
        self._unmask = unmask
        self._head = _NO_BYTES  # of an unfinished frame head, at most 13 bytes
        self._frame: _Frame | None = None
        self._message: _Message | None = None  # data message of which a frame came and the last is missing
        self._ended = False
        self._close_sent = False

    def feed(self, data: bytes) -> list[Event]:
        """Everything that these bytes complete."""
        events: list[Event] = []
        if self._head:
            data = self._head + data
            self._head = _NO_BYTES
        at, size = 0, len(data)
        while at < size and not self._ended:
            frame = self._frame
            if frame is None:
                head = read_head(data, at)
                if head is None:
                    self._head = data[at:]
                    break
                if isinstance(head, Failed):
                    self._deliver(head, events)
                    break
                refusal = self._refuse(head)
                if refusal is not None:
                    self._deliver(refusal, events)
                    break
                at = head.payload_at
                if head.final and head.opcode and at + head.length <= size:
                    payload = bytearray(data[at : at + head.length])
                    at += head.length
                    self._unmask(head.mask, payload)
                    self._deliver(_complete(head.opcode, payload), events)
                    continue
                frame = self._frame = self._begin(head)
            piece = bytearray(data[at : at + frame.left])
            at += len(piece)
            self._take(frame, piece, events)
        return events

    def close(self, code: int, reason: str = "") -> bytes:
        """The close frame to send, empty if one was sent before. Messages that still come are dropped."""
        if self._close_sent:
            return b""
        self._close_sent = True
        return encode_close(code, reason)

    def _refuse(self, head: Head) -> Failed | None:
        """Why this frame may not come now, if it may not."""
        if head.opcode >= CLOSE:
            return None
        held = 0
        if self._message is not None:
            if head.opcode != CONTINUATION:
                return Failed(CloseCode.PROTOCOL_ERROR, "new message before the last one ended")
            held = len(self._message.payload)
        elif head.opcode == CONTINUATION:
            return Failed(CloseCode.PROTOCOL_ERROR, "continuation of no message")
        if held + head.length > self._max_message:
            return Failed(CloseCode.MESSAGE_TOO_BIG, f"message above {self._max_message} bytes")
        return None

    def _begin(self, head: Head) -> _Frame:
        """Start to collect a frame that is not the whole of a message, or not here yet."""
        if head.opcode >= CLOSE:
            return _Frame(head, _Message(head.opcode))
        if self._message is None:
            self._message = _Message(head.opcode)
        return _Frame(head, self._message)

    def _take(self, frame: _Frame, piece: bytearray, events: list[Event]) -> None:
        """Add the next piece of a frame's payload."""
        self._unmask(frame.mask, piece)
        turn = len(piece) % 4
        frame.mask = frame.mask[turn:] + frame.mask[:turn]
        frame.left -= len(piece)
        message = frame.message
        last = frame.final and not frame.left
        if not message.add(piece, last):
            self._deliver(_NOT_UTF8, events)
            return
        if not frame.left:
            self._frame = None
        if last:
            if message is self._message:
                self._message = None
            self._deliver(_complete(message.opcode, message.payload), events)

    def _deliver(self, event: Event, events: list[Event]) -> None:
        """Pass an event on. After our own close frame only the peer's close, or its failure to send one, still counts."""
        if isinstance(event, (Close, Failed)):
            self._ended = True
            self._frame = self._message = None
        elif self._close_sent:
            return
        events.append(event)


def _complete(opcode: int, payload: bytearray) -> Event:
    """The event of a whole message or control frame."""
    if opcode == TEXT:
        if not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError:
                return _NOT_UTF8
        return Text(bytes(payload))
    if opcode == PING:
        return Ping(bytes(payload))
    if opcode == PONG:
        return Pong(bytes(payload))
    if opcode == BINARY:
        return Binary(bytes(payload))
    closed = parse_close(bytes(payload))
    return closed if isinstance(closed, Failed) else Close(*closed)
