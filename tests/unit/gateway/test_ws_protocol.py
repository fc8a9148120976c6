"""RFC 6455 section by section: what a server makes of a client's bytes."""

import pytest

from services.gateway.core.ws_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    CloseCode,
    Failed,
    encode_close,
    encode_frame,
    encode_text,
    unmask,
)
from services.gateway.core.ws_protocol import Binary, Close, Event, Ping, Pong, ServerProtocol, Text
from tests.support.ws_frames import MASK, client_frame, text_frames


def feed(data: bytes, max_message: int = 1000) -> list[Event]:
    return ServerProtocol(max_message).feed(data)


def code_of(data: bytes, max_message: int = 1000) -> int | None:
    """The code with which a stream of bytes fails, None when it does not."""
    events = feed(data, max_message)
    return events[-1].code if events and isinstance(events[-1], Failed) else None


def test_section_5_1_a_frame_from_a_client_must_be_masked() -> None:
    """An unmasked frame closes with 1002."""
    assert code_of(client_frame(TEXT, b"hi", mask=None)) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("reserved", [1, 2, 4, 7])
def test_section_5_2_reserved_bits_are_refused(reserved: int) -> None:
    """No extension is agreed, so a set reserved bit closes with 1002."""
    assert code_of(client_frame(TEXT, b"hi", reserved=reserved)) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_section_5_2_reserved_opcodes_are_refused(opcode: int) -> None:
    """An opcode without a meaning closes with 1002, as soon as its first two bytes are there."""
    assert code_of(client_frame(opcode)[:2]) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize(("size", "head"), [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)])
def test_section_5_2_lengths_have_three_forms(size: int, head: int) -> None:
    """7, 16 and 64 bit lengths are read and written, each in its shortest form."""
    payload = b"x" * size
    assert feed(client_frame(TEXT, payload), 1 << 20) == [Text(payload)]
    assert len(encode_text(payload)) == head + size


@pytest.mark.parametrize(("length", "form"), [(5, 2), (125, 2), (5, 8), (65535, 8)])
def test_section_5_2_a_length_must_be_minimally_encoded(length: int, form: int) -> None:
    """A length in a longer form than it needs closes with 1002."""
    assert code_of(client_frame(TEXT, b"", length=length, length_bytes=form)) == CloseCode.PROTOCOL_ERROR


def test_section_5_2_a_64_bit_length_has_its_top_bit_clear() -> None:
    """A length of 2**63 or more is a protocol error, not only a large message."""
    assert code_of(client_frame(TEXT, b"", length=1 << 63)) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 100])
def test_section_5_3_unmasking_twice_gives_the_data_back(size: int) -> None:
    """Masking is its own inverse, byte i with mask byte i modulo 4, whatever the length."""
    data = bytearray(range(size))
    unmask(MASK, data)
    assert data == bytes(i ^ MASK[i % 4] for i in range(size))
    unmask(MASK, data)
    assert data == bytes(range(size))


def test_section_5_4_fragments_make_one_message() -> None:
    """Frames of a message are joined; its kind is that of the first."""
    assert feed(text_frames(b"one ", b"", b"message")) == [Text(b"one message")]
    stream = client_frame(BINARY, b"\xff", final=False) + client_frame(CONTINUATION, b"\x00")
    assert feed(stream) == [Binary(b"\xff\x00")]


def test_section_5_4_control_frames_may_come_between_fragments() -> None:
    """A ping inside a message is delivered at once and leaves the message whole."""
    stream = client_frame(TEXT, b"a", final=False) + client_frame(PING, b"?") + client_frame(CONTINUATION, b"b")
    assert feed(stream) == [Ping(b"?"), Text(b"ab")]


def test_section_5_4_a_continuation_needs_a_message() -> None:
    """A continuation with nothing to continue closes with 1002."""
    assert code_of(client_frame(CONTINUATION, b"b")) == CloseCode.PROTOCOL_ERROR
    assert code_of(text_frames(b"a", b"b") + client_frame(CONTINUATION, b"c")) == CloseCode.PROTOCOL_ERROR


def test_section_5_4_messages_do_not_interleave() -> None:
    """A new data frame before the last message ended closes with 1002."""
    stream = client_frame(TEXT, b"a", final=False) + client_frame(TEXT, b"b")
    assert code_of(stream) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_section_5_5_control_frames_are_short_and_whole(opcode: int) -> None:
    """A control frame above 125 bytes, or without its final bit, closes with 1002."""
    assert code_of(client_frame(opcode, b"x" * 126)) == CloseCode.PROTOCOL_ERROR
    assert code_of(client_frame(opcode, b"", final=False)) == CloseCode.PROTOCOL_ERROR


def test_section_5_5_1_a_close_carries_code_and_reason() -> None:
    """Both are read, both may be absent, and nothing after a close is read."""
    assert feed(client_frame(CLOSE, b"\x03\xe8bye") + client_frame(TEXT, b"late")) == [Close(1000, "bye")]
    assert feed(client_frame(CLOSE)) == [Close(CloseCode.NO_STATUS, "")]


def test_section_5_5_1_a_close_is_answered_once() -> None:
    """The answer repeats the code; there is no second close frame."""
    protocol = ServerProtocol(1000)
    (event,) = protocol.feed(client_frame(CLOSE, b"\x03\xe9"))
    assert isinstance(event, Close)
    assert protocol.close(event.code) == b"\x88\x02\x03\xe9"
    assert protocol.close(1011) == b""


def test_section_5_5_1_messages_after_our_close_are_dropped() -> None:
    """Once we sent a close frame only the peer's close counts."""
    protocol = ServerProtocol(1000)
    assert protocol.close(1001, "restart") == encode_frame(CLOSE, b"\x03\xe9restart")
    assert protocol.feed(client_frame(TEXT, b"late") + client_frame(PING)) == []
    assert protocol.feed(client_frame(CLOSE, b"\x03\xe9")) == [Close(1001, "")]


def test_section_5_5_1_a_reason_is_cut_at_a_character() -> None:
    """A close frame stays a control frame however long its reason, and never ends in half a character."""
    frame = encode_close(1011, "x" * 122 + "é")
    assert len(frame) == 2 + 2 + 122
    assert encode_close(1011, "x" * 121 + "é").endswith("é".encode())


def test_section_5_5_2_pings_and_pongs_keep_their_payload() -> None:
    """The payload of a ping comes with it for the pong; a pong nobody asked for is an event, not an error."""
    assert feed(client_frame(PING, b"x" * 125) + client_frame(PONG, b"y")) == [Ping(b"x" * 125), Pong(b"y")]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_section_7_4_close_codes_that_must_not_be_sent_are_refused(code: int) -> None:
    """Codes that are reserved, unassigned or out of range close with 1002, and we never send them."""
    assert code_of(client_frame(CLOSE, code.to_bytes(2, "big"))) == CloseCode.PROTOCOL_ERROR
    assert encode_close(code, "why") == b"\x88\x00"


def test_section_7_4_half_a_code_is_refused() -> None:
    """A close frame of one byte closes with 1002."""
    assert code_of(client_frame(CLOSE, b"\x03")) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("bad", [b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"ok \xe2\x82"])
def test_section_8_1_text_must_be_utf8(bad: bytes) -> None:
    """Overlong forms, surrogates, numbers above U+10FFFF and cut characters close with 1007, in close reasons too."""
    assert code_of(client_frame(TEXT, bad)) == CloseCode.INVALID_DATA
    assert code_of(client_frame(CLOSE, b"\x03\xe8" + bad)) == CloseCode.INVALID_DATA


def test_section_8_1_a_character_may_span_fragments() -> None:
    """UTF-8 is checked over the message, not over its frames."""
    euro = "€".encode()
    assert feed(text_frames(euro[:1], euro[1:2], euro[2:])) == [Text(euro)]


def test_section_8_1_bad_text_fails_before_its_message_is_complete() -> None:
    """The first byte that cannot be UTF-8 ends the connection, in mid-frame and in mid-message."""
    frame = client_frame(TEXT, b"fine \xed\xa0\x80 and much more")
    assert code_of(frame[:14]) == CloseCode.INVALID_DATA
    assert code_of(client_frame(TEXT, b"\xff", final=False)) == CloseCode.INVALID_DATA


def test_section_10_4_a_message_above_the_limit_is_refused_from_its_head() -> None:
    """1009 comes from the announced length, before a byte of the payload is kept; fragments count together."""
    assert code_of(client_frame(TEXT, b"", length=1001)) == CloseCode.MESSAGE_TOO_BIG
    assert code_of(text_frames(b"x" * 600, b"x" * 401)) == CloseCode.MESSAGE_TOO_BIG
    assert feed(text_frames(b"x" * 600, b"x" * 400)) == [Text(b"x" * 1000)]


def test_an_idle_protocol_holds_nothing() -> None:
    """After a message no buffer is left behind."""
    protocol = ServerProtocol(1 << 20)
    for byte in text_frames(b"x" * 1000, b"y" * 1000):
        protocol.feed(bytes((byte,)))
    assert (protocol._frame, protocol._message, protocol._head) == (None, None, b"")
