"""The cases of the Autobahn fuzzing client, sections 1 to 7 and 9, as tables over an echo server of our own.

The suite itself needs Python 2 and is not run here; numbers in the names are its case numbers. Where it takes several
answers as correct, the table states the one we give. Its sections 12 and 13 test compression, which is never agreed.
"""

from collections.abc import Iterator

import pytest

from services.gateway.core.ws_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    CloseCode,
    encode_close,
    encode_frame,
    encode_text,
)
from tests.support.ws_frames import EchoServer, client_frame, text_frames

NORMAL = b"\x03\xe8"
GREEK = "Hello-µ@ßöäüàá-UTF-8!!".encode()
KOSME = "κόσμε".encode()
CHOPS = (None, 997, 1)  # octets per write: all at once, an odd number, one by one


def exchange(stream: bytes, chop: int | None) -> tuple[bytes, EchoServer]:
    """What the server writes to a client that sends `stream` in writes of `chop` octets."""
    server = EchoServer()
    step = chop or max(1, len(stream))
    return b"".join(server.feed(stream[at : at + step]) for at in range(0, len(stream), step)), server


def text(payload: bytes, *, final: bool = True) -> bytes:
    return client_frame(TEXT, payload, final=final)


def more(payload: bytes, *, final: bool = True) -> bytes:
    return client_frame(CONTINUATION, payload, final=final)


def ping(payload: bytes) -> bytes:
    return client_frame(PING, payload)


def pong_to(payload: bytes) -> bytes:
    return encode_frame(PONG, payload)


def accepted() -> Iterator[tuple[str, bytes, bytes]]:
    """(case, what the client sends, what it must get) for streams that stay open."""
    sizes = (0, 125, 126, 127, 128, 65535, 65536)
    for number, size in enumerate(sizes, 1):
        yield f"1.1.{number} text of {size}", text(b"*" * size), encode_text(b"*" * size)
        yield (
            f"1.2.{number} binary of {size}",
            client_frame(BINARY, b"\xfe" * size),
            encode_frame(BINARY, b"\xfe" * size),
        )
    for case, payload in (
        ("2.1", b""),
        ("2.2", b"Hello, world!"),
        ("2.3", b"\x00\xff\xfe\xfd"),
        ("2.4", b"\xfe" * 125),
    ):
        yield f"{case} ping", ping(payload), pong_to(payload)
    yield "2.7 unsolicited pong", client_frame(PONG), b""
    yield "2.8 unsolicited pong with payload", client_frame(PONG, b"payload"), b""
    yield "2.9 unsolicited pong, then ping", client_frame(PONG, b"payload") + ping(b"ping"), pong_to(b"ping")
    many = [b"payload-%d" % i for i in range(10)]
    yield "2.10 ten pings", b"".join(map(ping, many)), b"".join(map(pong_to, many))
    whole = encode_text(b"fragment1fragment2")
    yield "5.3 two fragments", text_frames(b"fragment1", b"fragment2"), whole
    between = text(b"fragment1", final=False) + ping(b"ping") + more(b"fragment2")
    yield "5.6 ping between fragments", between, pong_to(b"ping") + whole
    five = (
        text(b"1", final=False)
        + more(b"2", final=False)
        + ping(b"a")
        + more(b"3", final=False)
        + ping(b"b")
        + more(b"4")
    )
    yield "5.19 pings between five fragments", five, pong_to(b"a") + pong_to(b"b") + encode_text(b"1234")
    yield "6.1.1 empty text", text(b""), encode_text(b"")
    yield "6.1.2 three empty fragments", text_frames(b"", b"", b""), encode_text(b"")
    yield "6.1.3 empty around a fragment", text_frames(b"", b"middle", b""), encode_text(b"middle")
    yield "6.2.1 UTF-8", text(GREEK), encode_text(GREEK)
    yield "6.2.2 UTF-8 in two fragments", text_frames(GREEK[:8], GREEK[8:]), encode_text(GREEK)
    yield (
        "6.2.3 UTF-8 in fragments of one octet",
        text_frames(*(GREEK[i : i + 1] for i in range(len(GREEK)))),
        encode_text(GREEK),
    )
    yield (
        "6.2.4 kosme in fragments of one octet",
        text_frames(*(KOSME[i : i + 1] for i in range(len(KOSME)))),
        encode_text(KOSME),
    )
    valid = (
        "κόσμε",
        "\x00",
        "\x80",
        "\u0800",
        "\U00010000",
        "\x7f",
        "\u07ff",
        "\uffff",
        "\ud7ff",
        "\ue000",
        "\ufffd",
        "\U0010ffff",
        "\ufffe",
    )
    for number, sample in enumerate(valid, 5):
        payload = sample.encode()
        yield f"6.5-6.23 valid U+{ord(sample[-1]):04X} ({number})", text(payload), encode_text(payload)
    for size in (1 << 16, 1 << 18, 1 << 20):
        yield f"9.1 text of {size}", text(b"*" * size), encode_text(b"*" * size)
        yield f"9.3 text of {size} in fragments", text_frames(*[b"*" * (size // 16)] * 16), encode_text(b"*" * size)


def refused() -> Iterator[tuple[str, bytes, CloseCode]]:
    """(case, what the client sends, the code it must be closed with)."""
    protocol_error, invalid_data = CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA
    yield "2.5 ping above 125", ping(b"\xfe" * 126), protocol_error
    for bits in range(1, 8):
        yield f"3.{bits} reserved bits {bits}", client_frame(TEXT, b"*", reserved=bits), protocol_error
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"4 reserved opcode {opcode}", client_frame(opcode), protocol_error
        yield f"4 reserved opcode {opcode} with payload", client_frame(opcode, b"reserved"), protocol_error
    yield "5.1 fragmented ping", client_frame(PING, b"a", final=False) + more(b"b"), protocol_error
    yield "5.2 fragmented pong", client_frame(PONG, b"a", final=False) + more(b"b"), protocol_error
    yield "5.9 continuation of nothing", more(b"non-continuation"), protocol_error
    yield "5.10 unfinished continuation of nothing", more(b"non-continuation", final=False), protocol_error
    yield "5.15 continuation after the last", text_frames(b"a", b"b") + more(b"c", final=False), protocol_error
    yield "5.18 text in a text", text(b"fragment1", final=False) + text(b"fragment2"), protocol_error
    yield "6.3.1 invalid UTF-8", text(KOSME + b"\xed\xa0\x80edited"), invalid_data
    yield (
        "6.3.2 invalid UTF-8, octet by octet",
        text_frames(*(bytes((b,)) for b in KOSME + b"\xed\xa0\x80edited")),
        invalid_data,
    )
    yield (
        "6.4.1 invalid in the second fragment",
        text(KOSME, final=False) + more(b"\xf4\x90\x80\x80", final=False),
        invalid_data,
    )
    yield (
        "6.4.2 invalid at the end of a fragment",
        text(KOSME + b"\xf4", final=False) + more(b"\x90", final=False),
        invalid_data,
    )
    bad = (
        b"\xce", b"\xce\xba\xe1", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf",
        b"\xf4\x90\x80\x80", b"\x80", b"\xbf", b"\x80\xbf\x80", b"\xc0 ", b"\xe0\x80 ", b"\xf0\x80\x80 ", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf",
        b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xc0\x80", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80", b"\xfe", b"\xff",
    )  # fmt: skip
    for sample in bad:
        yield f"6.6-6.21 invalid {sample.hex()}", text(sample), invalid_data
    yield "7.3.2 close of one octet", client_frame(CLOSE, b"a"), protocol_error
    yield "7.3.6 close above 125", client_frame(CLOSE, NORMAL + b"*" * 124), protocol_error
    yield (
        "7.5.1 close with an invalid reason",
        client_frame(CLOSE, NORMAL + KOSME + b"\xed\xa0\x80edited"),
        invalid_data,
    )
    for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535):
        yield f"7.9 close code {code}", client_frame(CLOSE, code.to_bytes(2, "big")), protocol_error


def closing() -> Iterator[tuple[str, bytes, bytes]]:
    """(case, what the client sends, everything it must get) for streams that the client closes."""
    normal = encode_close(1000)
    yield (
        "7.1.1 message, close",
        text(b"Hello World!") + client_frame(CLOSE, NORMAL),
        encode_text(b"Hello World!") + normal,
    )
    yield "7.1.2 close twice", client_frame(CLOSE, NORMAL) * 2, normal
    yield "7.1.3 ping after close", client_frame(CLOSE, NORMAL) + ping(b""), normal
    yield "7.1.4 message after close", client_frame(CLOSE, NORMAL) + text(b"Hello World!"), normal
    yield "7.1.5 close in a message", text(b"1", final=False) + client_frame(CLOSE, NORMAL) + more(b"2"), normal
    yield "7.3.1 close without payload", client_frame(CLOSE), encode_frame(CLOSE, b"")
    yield "7.3.3 close with a code", client_frame(CLOSE, NORMAL), normal
    yield "7.3.4 close with a reason", client_frame(CLOSE, NORMAL + b"Hello World!"), normal
    yield "7.3.5 close with the longest reason", client_frame(CLOSE, NORMAL + b"*" * 123), normal
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
        yield f"7.7 close code {code}", client_frame(CLOSE, code.to_bytes(2, "big")), encode_close(code)


def table(rows: Iterator[tuple[str, bytes, object]]) -> list[object]:
    return [pytest.param(*row[1:], id=row[0]) for row in rows]


@pytest.mark.parametrize(("sent", "expected"), table(accepted()))
def test_a_valid_stream_is_echoed(sent: bytes, expected: bytes) -> None:
    """Whatever way its octets are cut, a valid stream is answered to the byte and stays open."""
    for chop in CHOPS[: 3 if len(sent) < 1000 else 2]:
        written, server = exchange(sent, chop)
        assert written == expected
        assert not server.dropped


@pytest.mark.parametrize(("sent", "code"), table(refused()))
def test_an_invalid_stream_is_closed_with_its_code(sent: bytes, code: CloseCode) -> None:
    """Whatever way its octets are cut, an invalid stream ends in one close frame that says why, and no echo."""
    for chop in CHOPS:
        written, server = exchange(sent + text(b"after"), chop)
        if sent.startswith(text_frames(b"a", b"b")):
            written = written.removeprefix(encode_text(b"ab"))
        assert written[0] == 0x88
        assert int.from_bytes(written[2:4], "big") == code
        assert len(written) == 2 + written[1]
        assert server.dropped


@pytest.mark.parametrize(("sent", "expected"), table(closing()))
def test_a_closing_handshake_is_answered_once(sent: bytes, expected: bytes) -> None:
    """The close is echoed once with its code, and what follows it is not read."""
    for chop in CHOPS:
        written, server = exchange(sent, chop)
        assert written == expected
        assert server.dropped


def test_9_7_many_messages_in_one_write_are_echoed_in_order() -> None:
    """A thousand messages that arrive at once come back in order."""
    messages = [b"%d" % i for i in range(1000)]
    written, _ = exchange(b"".join(map(text, messages)), None)
    assert written == b"".join(map(encode_text, messages))
