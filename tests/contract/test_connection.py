"""The port `Connection`, on the slim protocol and on aiohttp's own WebSocket: the same to a client and to a session."""

import asyncio
import contextlib
import gc
import random
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from services.gateway.core.ws_frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, CloseCode
from services.gateway.websocket.aiohttp_connection import serve_aiohttp
from services.gateway.websocket.connection import Connection, MessageHandler, OpenSession, WebSocketLimits
from services.gateway.websocket.slim_connection import SlimConnection, SlimServer
from tests.support.waiting import eventually
from tests.support.ws_frames import client_frame

LIMITS = WebSocketLimits(max_frame_bytes=4096, high_water=64 * 1024, low_water=16 * 1024, heartbeat_s=20.0, close_s=1.0)
QUICK = WebSocketLimits(max_frame_bytes=4096, heartbeat_s=0.5, close_s=0.3)
HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
Serve = Callable[[web.Request, WebSocketLimits, OpenSession], Coroutine[Any, Any, web.StreamResponse]]

# The hook that replaces this fixture works only for a whole folder.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The services' own loop: the hand-over and the write path are its business too."""
    return uvloop.EventLoopPolicy()


@dataclass
class Recorder(MessageHandler):
    """A session that echoes, and remembers what it was told."""

    connection: Connection | None
    messages: list[bytes] = field(default_factory=list)
    writable: int = 0
    closed: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_message(self, message: bytes) -> None:
        self.messages.append(message)
        assert self.connection is not None
        self.connection.send(b"echo " + message)
        self.changed.set()

    def on_writable(self) -> None:
        self.writable += 1
        self.changed.set()

    def on_closed(self) -> None:
        self.closed += 1
        self.connection = None
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Gateway:
    """A server on a free port whose connections all meet a Recorder."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.limits = LIMITS
        self.sessions: list[Recorder] = []
        self.opened = asyncio.Event()
        self.hello: tuple[bytes, ...] = (b"hello",)
        self.port = 0

    def open_session(self, connection: Connection) -> Recorder:
        self.sessions.append(Recorder(connection))
        for message in self.hello:
            connection.send(message)
        self.opened.set()
        return self.sessions[-1]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        return await self.serve(request, self.limits, self.open_session)

    async def session(self) -> Recorder:
        async with asyncio.timeout(5):
            await self.opened.wait()
        return self.sessions[-1]

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[ClientConnection]:
        """A client of the `websockets` library that has read the hello."""
        url = f"ws://127.0.0.1:{self.port}/ws"
        async with connect(url, compression=None, ping_interval=None, max_size=None, **options) as client:
            assert await client.recv() == "hello"
            yield client

    @contextlib.asynccontextmanager
    async def raw(self, behind: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A bare TCP client behind its upgrade, with `behind` sent in the same write as the request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(HANDSHAKE.replace("Connection: ", "Connection: keep-alive, ").encode() + behind)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert answer.startswith(b"http/1.1 101")
        assert b"s3pplmbitxaq9kygzzhzrbk+xoo=" in answer
        assert await reader.readexactly(7) == b"\x81\x05hello"
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def running(serve: Serve) -> AsyncIterator[Gateway]:
    gateway = Gateway(serve)
    app = web.Application()
    app.router.add_get("/ws", gateway.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)  # as the gateway does
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gateway.port = runner.addresses[0][1]
    try:
        yield gateway
    finally:
        await runner.cleanup()


@pytest.fixture(params=["slim", "aiohttp"])
async def gateway(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    async with contextlib.AsyncExitStack() as stack:
        serve = serve_aiohttp if request.param == "aiohttp" else (await stack.enter_async_context(SlimServer())).serve
        yield await stack.enter_async_context(running(serve))


@pytest.fixture
async def slim() -> AsyncIterator[tuple[SlimServer, Gateway]]:
    async with SlimServer() as server, running(server.serve) as gateway:
        yield server, gateway


# -- what a client sees -------------------------------------------------------------------------------------------------


async def test_messages_arrive_in_order_and_are_answered_in_order(gateway: Gateway) -> None:
    """Text in, text out, Unicode unharmed, on a connection that agreed on the subprotocol."""
    async with gateway.client(subprotocols=["other", "millrace.v1"]) as client:
        assert client.subprotocol == "millrace.v1"
        texts = [f"message {i} €𐍈" for i in range(50)]
        for text in texts:
            await client.send(text)
        assert [await client.recv() for _ in texts] == ["echo " + text for text in texts]
    assert [message.decode() for message in (await gateway.session()).messages] == texts


async def test_a_client_that_names_no_subprotocol_is_served(gateway: Gateway) -> None:
    """The subprotocol is agreed when offered and not forced on anybody."""
    async with gateway.client() as client:
        assert client.subprotocol is None


async def test_bytes_behind_the_upgrade_request_are_read(gateway: Gateway) -> None:
    """A client may send frames without waiting for the answer to its upgrade, and cut them anywhere."""
    frame = client_frame(TEXT, b"early")
    async with gateway.raw(behind=frame + frame[:3]) as (reader, writer):
        assert await reader.readexactly(12) == b"\x81\x0aecho early"
        writer.write(frame[3:])
        assert await reader.readexactly(12) == b"\x81\x0aecho early"


async def test_fragments_and_pings_between_them_are_understood(gateway: Gateway) -> None:
    """A ping inside a fragmented message is answered at once, the message stays whole."""
    async with gateway.raw() as (reader, writer):
        writer.write(client_frame(TEXT, "€".encode()[:1], final=False) + client_frame(PING, b"?"))
        assert await reader.readexactly(3) == b"\x8a\x01?"
        writer.write(client_frame(CONTINUATION, "€".encode()[1:]))
        assert await reader.readexactly(10) == b"\x81\x08echo " + "€".encode()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(client_frame(TEXT, b"x", reserved=4), CloseCode.PROTOCOL_ERROR, id="reserved bits"),
        pytest.param(client_frame(3), CloseCode.PROTOCOL_ERROR, id="reserved opcode"),
        pytest.param(client_frame(CONTINUATION, b"x"), CloseCode.PROTOCOL_ERROR, id="continuation of nothing"),
        pytest.param(client_frame(PING, b"x" * 126), CloseCode.PROTOCOL_ERROR, id="long ping"),
        pytest.param(client_frame(TEXT, b"\xff"), CloseCode.INVALID_DATA, id="not UTF-8"),
        pytest.param(client_frame(TEXT, b"x" * 4097), CloseCode.MESSAGE_TOO_BIG, id="too big"),
        pytest.param(client_frame(BINARY, b"x"), CloseCode.UNSUPPORTED_DATA, id="binary"),
    ],
)
async def test_a_client_that_breaks_the_protocol_is_told_and_closed(gateway: Gateway, sent: bytes, code: int) -> None:
    """It gets a close frame with the code, then the end; the session hears of the end once and of no message."""
    async with gateway.raw() as (reader, writer):
        writer.write(sent)
        close = await reader.readexactly(4)
        assert (close[0], int.from_bytes(close[2:], "big")) == (0x88, code)
        await reader.readexactly(close[1] - 2)
        writer.write(client_frame(CLOSE, close[2:]))
        assert await reader.read() == b""
    session = await gateway.session()
    await session.until(lambda: session.closed > 0)
    assert session.messages == []


async def test_a_closing_client_is_answered_with_its_code(gateway: Gateway) -> None:
    """The close handshake completes, and the session hears of it once."""
    async with gateway.client() as client:
        await client.close(4000, "done")
        assert client.close_code in {4000, 1000}  # the slim protocol repeats the code, aiohttp answers with 1000
    session = await gateway.session()
    await session.until(lambda: session.closed > 0)
    assert session.closed == 1


@pytest.mark.parametrize("reset", [False, True], ids=["end of file", "reset"])
async def test_a_client_that_vanishes_is_noticed(gateway: Gateway, reset: bool) -> None:
    """No close frame: the session hears of the end once, and its connection takes sends without harm."""
    async with gateway.raw() as (_, writer):
        session = await gateway.session()
        connection = session.connection
        assert connection is not None
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        await session.until(lambda: session.closed > 0)
    connection.send(b"late")
    connection.close(1000)
    await asyncio.sleep(0.05)
    assert session.closed == 1
    assert not connection.writable


async def test_a_request_that_is_no_upgrade_gets_400(gateway: Gateway) -> None:
    """A plain GET is an HTTP error, and the port goes on serving."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    writer.close()
    await writer.wait_closed()
    assert gateway.sessions == []


# -- what a session sees ------------------------------------------------------------------------------------------------


async def test_a_session_closes_with_code_and_reason_after_what_it_sent(gateway: Gateway) -> None:
    """What was sent before goes out before the close frame, what is sent after is dropped; a long reason is cut."""
    async with gateway.client() as client:
        session = await gateway.session()
        assert session.connection is not None
        session.connection.send(b"last")
        session.connection.close(4401, "r" * 200)
        session.connection.send(b"too late")
        session.connection.close(1000)
        assert await client.recv() == "last"
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4401, "r" * 123)
    await session.until(lambda: session.closed > 0)
    assert session.closed == 1


async def test_a_session_may_close_while_it_is_opened(gateway: Gateway) -> None:
    """The refusal of a connection is a close like any other."""
    gateway.hello = ()
    open_session = gateway.open_session

    def refuse(connection: Connection) -> Recorder:
        session = open_session(connection)
        connection.close(4401, "unauthenticated")
        return session

    gateway.open_session = refuse  # type: ignore[method-assign]
    async with connect(f"ws://127.0.0.1:{gateway.port}/ws") as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 4401
    await (session := await gateway.session()).until(lambda: session.closed == 1)


async def test_a_peer_that_does_not_answer_a_close_is_dropped(gateway: Gateway) -> None:
    """After `close_s` the connection ends without the peer's close frame."""
    gateway.limits = QUICK
    async with gateway.raw() as (reader, _):
        session = await gateway.session()
        assert session.connection is not None
        session.connection.close(1001)
        assert await reader.readexactly(4) == b"\x88\x02\x03\xe9"
        await session.until(lambda: session.closed > 0)
        assert await reader.read() == b""


async def test_a_slow_reader_is_told_to_the_session_and_gets_every_byte(gateway: Gateway) -> None:
    """Above the high-water mark `writable` is False, after the drain `on_writable` comes; nothing is lost or doubled."""
    async with gateway.raw() as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        session = await gateway.session()
        connection = session.connection
        assert connection is not None
        sent = 0
        while connection.writable:
            for _ in range(8):
                connection.send(b"%07d" % sent + b"x" * 8185)
                sent += 1
            await asyncio.sleep(0)
        assert connection.buffered > LIMITS.high_water
        assert session.writable == 0
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        for number in range(sent):
            frame = await reader.readexactly(4 + 8192)
            assert frame[4:11] == b"%07d" % number
        await session.until(lambda: session.writable > 0)
        assert connection.writable
        assert session.writable == 1
        writer.write(client_frame(TEXT, b"still here"))
        assert await reader.readexactly(17) == b"\x81\x0fecho still here"


async def test_a_quiet_connection_is_pinged_within_a_heartbeat(gateway: Gateway) -> None:
    """A client that answers pings stays, however long it says nothing."""
    gateway.limits = QUICK
    async with gateway.raw() as (reader, writer):
        for _ in range(3):
            async with asyncio.timeout(5):
                head = await reader.readexactly(2)
            assert head[0] == 0x89
            payload = await reader.readexactly(head[1])
            writer.write(client_frame(0xA, payload))
        assert (await gateway.session()).closed == 0


async def test_a_client_that_answers_no_ping_is_closed(gateway: Gateway) -> None:
    """Two heartbeats without a byte end the connection."""
    gateway.limits = QUICK
    async with gateway.raw() as (reader, _):
        session = await gateway.session()
        async with asyncio.timeout(5):
            await session.until(lambda: session.closed > 0)
            with contextlib.suppress(ConnectionError):
                await reader.read()


# -- what only the slim protocol promises --------------------------------------------------------------------------------


async def test_sends_of_one_loop_iteration_leave_in_one_segment(slim: tuple[SlimServer, Gateway]) -> None:
    """Ten messages cost one system call and one packet."""
    _, gateway = slim
    async with gateway.client() as client:
        session = await gateway.session()
        connection = session.connection
        assert isinstance(connection, SlimConnection)

        def segments() -> int:
            sock = connection._transport.get_extra_info("socket")
            return struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232), 140)[0]

        before = segments()
        for number in range(10):
            connection.send(b"%d" % number)
        assert [await client.recv() for _ in range(10)] == [str(number) for number in range(10)]
        assert segments() - before == 1


async def test_a_closed_connection_is_freed_without_the_cycle_collector(slim: tuple[SlimServer, Gateway]) -> None:
    """Reference counts alone free a connection and everything aiohttp made for its upgrade."""
    server, gateway = slim

    def alive() -> int:
        kinds = {SlimConnection, web.Request, Recorder}
        return sum(type(thing) in kinds for thing in gc.get_objects())

    async def a_connection() -> None:
        async with gateway.client() as client:
            await client.send("x")
            await client.recv()
        await gateway.sessions.pop().until(lambda: not server.connections)

    await a_connection()
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(5):
            await a_connection()
        await asyncio.sleep(0.05)
        assert alive() == before == 0
    finally:
        gc.enable()


async def test_an_open_connection_leaves_nothing_of_aiohttp_behind(slim: tuple[SlimServer, Gateway]) -> None:
    """No request, no handler, no task belongs to an idle connection."""
    _, gateway = slim
    tasks = len(asyncio.all_tasks())
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(gateway.raw())
        await eventually(lambda: len(asyncio.all_tasks()) == tasks)
        gc.collect()
        assert not [thing for thing in gc.get_objects() if type(thing) in {web.Request, web.RequestHandler}]
        assert sum(sys.getsizeof(part) for part in parts(next(iter(slim[0].connections)))) < 500


def parts(connection: SlimConnection) -> list[object]:
    return [connection, connection._protocol]


async def test_leaving_the_server_closes_what_is_left() -> None:
    """aiohttp's runner does not know the connections that changed hands; their own server closes them with 1012."""
    async with SlimServer() as server, running(server.serve) as gateway, contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(gateway.client())
        leaving = asyncio.create_task(server.__aexit__(None, None, None))
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == CloseCode.SERVICE_RESTART
        await leaving
        assert not server.connections


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), b"426"),
        (("Sec-WebSocket-Key: dGhl", "Sec-WebSocket-Key: ????"), b"400"),
        (("Sec-WebSocket-Key: dGhl", "Sec-WebSocket-Key: "), b"400"),
        (("Connection: Upgrade", "Connection: close"), b"400"),
    ],
    ids=["version", "key that is no base64", "short key", "no upgrade"],
)
async def test_a_wrong_handshake_is_refused(
    slim: tuple[SlimServer, Gateway], change: tuple[str, str], status: bytes
) -> None:
    """Another version gets 426, anything else that is no upgrade 400, and no session is opened."""
    _, gateway = slim
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write((HANDSHAKE.replace(*change)).encode())
    assert status in await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert gateway.sessions == []


async def test_random_exchanges_end_clean(slim: tuple[SlimServer, Gateway]) -> None:
    """Twenty clients that send and leave at random get their own echoes in order, and nothing stays behind."""
    server, gateway = slim
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    print(f"seed {seed}")

    async def a_client(number: int) -> None:
        async with gateway.client() as client:
            for step in range(rng.randrange(20)):
                text = f"{number}.{step} " + "x" * rng.randrange(3000)
                await client.send(text)
                assert await client.recv() == "echo " + text
            if rng.random() < 0.5:
                client.transport.abort()

    await asyncio.gather(*map(a_client, range(20)))
    await eventually(lambda: not server.connections)
    assert all(session.closed == 1 for session in gateway.sessions)
