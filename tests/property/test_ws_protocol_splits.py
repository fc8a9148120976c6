"""The protocol is a function of its bytes: how the network cuts them changes nothing, and a real client agrees."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.uri import parse_uri
from websockets.utils import accept_key

from services.gateway.core.ws_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, CloseCode, Failed
from services.gateway.core.ws_protocol import Binary, Close, Event, Ping, Pong, ServerProtocol, Text
from tests.support.ws_frames import EchoServer, client_frame

LIMIT = 200
opcodes = st.sampled_from([TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE]) | st.integers(0, 15)
payloads = (
    st.binary(max_size=140)
    | st.text(max_size=60).map(str.encode)
    | st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8\xff"])
)
frames = st.builds(
    client_frame,
    opcodes,
    payloads,
    final=st.booleans() | st.just(True),
    reserved=st.just(0) | st.just(0) | st.integers(0, 7),
    mask=st.binary(min_size=4, max_size=4) | st.binary(min_size=4, max_size=4) | st.none(),
)


def events_of(pieces: list[bytes]) -> list[Event]:
    protocol = ServerProtocol(LIMIT)
    return [event for piece in pieces for event in protocol.feed(piece)]


@given(
    st.lists(frames, max_size=12).map(b"".join) | st.binary(max_size=60), st.lists(st.integers(0, 1000), max_size=30)
)
def test_any_split_of_the_bytes_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    """One read, many reads, empty reads, one byte at a time: the same events, valid stream or not."""
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    whole = events_of([stream])
    assert events_of([stream[a:b] for a, b in pairwise(places)]) == whole
    assert events_of([bytes((byte,)) for byte in stream]) == whole


@given(st.lists(frames, max_size=12).map(b"".join))
def test_an_end_is_the_last_event(stream: bytes) -> None:
    """Nothing follows a close or a failure, and no text event is anything but UTF-8 below the limit."""
    events = events_of([stream])
    for event in events[:-1]:
        assert not isinstance(event, Close | Failed)
    for event in events:
        if isinstance(event, Text):
            event.payload.decode()
        if isinstance(event, Text | Binary):
            assert len(event.payload) <= LIMIT


@given(st.data())
def test_a_message_survives_any_fragmentation(data: st.DataObject) -> None:
    """Text in any fragments with any pings between them arrives whole and once, the pings in their order."""
    payload = data.draw(st.text(max_size=60)).encode()[:LIMIT]
    payload = payload.decode(errors="ignore").encode()
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(payload)), max_size=5))), len(payload)]
    pieces = [payload[a:b] for a, b in pairwise(cuts)]
    stream, pings = b"", []
    for number, piece in enumerate(pieces):
        stream += client_frame(TEXT if number == 0 else CONTINUATION, piece, final=number == len(pieces) - 1)
        if number < len(pieces) - 1 and data.draw(st.booleans()):
            pings.append(Ping(b"%d" % number))
            stream += client_frame(PING, b"%d" % number)
    assert events_of([stream]) == [*pings, Text(payload)]


def websockets_client() -> ClientProtocol:
    """A client of the `websockets` library that has its upgrade behind it."""
    client = ClientProtocol(parse_uri("ws://localhost/"), max_size=None)
    request = client.connect()
    client.send_request(request)
    client.data_to_send()
    accept = accept_key(request.headers["Sec-WebSocket-Key"])
    upgrade = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}"
    client.receive_data(f"HTTP/1.1 101 Switching Protocols\r\n{upgrade}\r\n\r\n".encode())
    client.events_received()
    return client


def take_events(client: ClientProtocol) -> list[tuple[Opcode, bytes]]:
    return [(frame.opcode, bytes(frame.data)) for frame in client.events_received()]  # type: ignore[union-attr]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["text", "binary", "ping", "pong"]), st.text(max_size=100)), max_size=10))
def test_a_client_of_the_websockets_library_is_understood(sent: list[tuple[str, str]]) -> None:
    """What it sends comes back to it as sent, and it reads our frames without complaint, the close included."""
    client, server, expected = websockets_client(), EchoServer(), []
    for kind, content in sent:
        payload = content.encode()[: 120 if kind in {"ping", "pong"} else None]
        {"text": client.send_text, "binary": client.send_binary, "ping": client.send_ping, "pong": client.send_pong}[
            kind
        ](payload)
        if kind != "pong":
            expected.append(({"text": Opcode.TEXT, "binary": Opcode.BINARY, "ping": Opcode.PONG}[kind], payload))
    client.send_close(1000, "done")
    client.receive_data(server.feed(b"".join(client.data_to_send())))
    *messages, (close, _) = take_events(client)
    assert messages == expected
    assert close is Opcode.CLOSE
    assert client.close_rcvd is not None
    assert client.close_rcvd.code == CloseCode.NORMAL
    assert server.events[-1] == Close(1000, "done")


@given(payloads)
def test_pongs_are_events(payload: bytes) -> None:
    """A pong's payload is kept, whatever it is."""
    assert events_of([client_frame(PONG, payload[:125])]) == [Pong(payload[:125])]
