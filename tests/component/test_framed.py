"""Connections that carry messages: who listens, who does not and says why, who fell silent; what gathers."""

import asyncio
import contextlib

import pytest

from millrace.frames.v1 import frames_pb2
from millrace.frames.v1.frames_pb2 import Frame, FrameBatch
from services.chassis.framed_client import RefusedError, dial
from services.chassis.framed_server import framed_server, refuse
from services.chassis.framing import FramedConnection, method
from services.chassis.gather import Gather
from services.gateway.reading.frames_servicer import HELD, frames_methods
from services.gateway.reading.readers import STRIDE
from tests.support.waiting import eventually

PUSH = method(frames_pb2, "Frames", "Push")


class Parrot:
    """Says everything again; `no` is refused, `bug` raises."""

    def __init__(self, connection):
        self.connection = connection
        self.owes = asyncio.Event()
        connection.send(b"")

    def take(self, message):
        if message == b"bug":
            raise KeyError("x")
        if message == b"late":
            self.owes.set()
        else:
            self.connection.send(message)

    def lost(self):
        pass

    async def leave(self):
        if self.owes.is_set():
            self.connection.send(b"late")


class Refuser(Parrot):
    """Listens to nobody."""

    def __init__(self, connection):
        refuse(connection, "not today")


@contextlib.asynccontextmanager
async def talk(methods, name, on_message=lambda _: None):
    """A server of these methods, and a line to one of them."""
    async with (
        framed_server("127.0.0.1", 0, methods) as server,
        dial(f"127.0.0.1:{server.port}", name, on_message) as line,
    ):
        yield line


async def test_both_ends_hear_every_message_in_order():
    """Whatever its size, the empty one too."""
    said, heard = [b"a", b"", b"x" * 300_000, b"b"], []
    async with talk({"parrot": Parrot}, "parrot", heard.append) as line:
        for message in said:
            line.send(message)
        await line.listening()
        await eventually(lambda: len(heard) == len(said))
    assert heard == said


@pytest.mark.parametrize(("name", "reason"), [("refuser", "not today"), ("nobody", "not served here")])
async def test_who_does_not_listen_says_why(name, reason):
    """A service that refuses, and a method that is not served."""
    async with talk({"refuser": Refuser}, name) as line:
        with pytest.raises(RefusedError, match=reason):
            await line.listening()


async def test_a_stopped_server_does_not_listen():
    """Its kernel takes the connection and the bytes; in time it counts as not there."""

    async def silent_one(reader, writer):
        with contextlib.closing(writer):
            await reader.read()

    async with await asyncio.start_server(silent_one, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        async with dial(f"127.0.0.1:{port}", "parrot", lambda _: None, within_s=0.1) as line:
            with pytest.raises(TimeoutError):
                await line.listening()


async def test_silence_ends_a_line_and_speech_keeps_it():
    """A server that speaks within the time is heard on; one that does not is given up."""
    async with talk({"parrot": Parrot}, "parrot") as line:
        await line.listening()
        over = asyncio.create_task(line.over(1.0))
        for _ in range(15):
            line.send(b"still here")
            await asyncio.sleep(0.1)
        assert not over.done()
        with pytest.raises(TimeoutError, match="nothing was heard"):
            await over


async def test_a_server_that_stops_says_what_it_owes():
    """Then the line is over, without an error."""
    heard = []
    serving = framed_server("127.0.0.1", 0, {"parrot": Parrot})
    server = await serving.__aenter__()
    async with dial(f"127.0.0.1:{server.port}", "parrot", heard.append) as line:
        line.send(b"late")
        line.send(b"now")
        await eventually(lambda: heard == [b"now"])
        await serving.__aexit__(None, None, None)
        await line.over(5.0)
    assert heard == [b"now", b"late"]


async def test_what_gathers_within_the_gap_is_sent_together():
    """The first at once, the rest when the gap is over, nothing when nothing came."""
    sent = []
    loop = asyncio.get_running_loop()
    gather = Gather(lambda items: sent.append((loop.time(), items)), 0.05)
    for n in range(3):
        gather.put(n)
    await eventually(lambda: sent)
    gather.put(3)
    gather.put(4, 5)
    await eventually(lambda: len(sent) == 2)
    assert [items for _, items in sent] == [[0, 1, 2], [3, 4, 5]]
    assert sent[1][0] - sent[0][0] >= 0.045
    gather.put(6)
    gather.clear()
    gather.flush()
    assert len(sent) == 2


async def test_a_gateway_takes_frames_in_strides_and_holds_a_bounded_number(monkeypatch):
    """Acknowledgments go between two strides; a worker that pushes faster than they are shown is not read meanwhile."""
    strides, turns, pauses = [], 0, []
    pause = FramedConnection.pause
    monkeypatch.setattr(FramedConnection, "pause", lambda self: (pauses.append(turns), pause(self)))

    def on_frames(boot, frames):
        strides.append((boot, [frame.start for frame in frames], turns))

    async with talk(frames_methods(on_frames), PUSH) as line:
        await line.listening()
        batches = 4 * HELD
        for n in range(batches):
            frames = [Frame(handle=1, start=3 * STRIDE * n + i, text="x" * 1000) for i in range(3 * STRIDE)]
            line.send(FrameBatch(boot=7, frames=frames).SerializeToString())
        async with asyncio.timeout(10):
            while len(strides) < 3 * batches:
                turns += 1
                await asyncio.sleep(0)
    starts = [start for _, each, _ in strides for start in each]
    assert starts == list(range(3 * STRIDE * batches))
    assert {boot for boot, _, _ in strides} == {7}
    assert all(len(each) == STRIDE for _, each, _ in strides)
    assert strides[-1][2] - strides[0][2] >= batches
    assert len(pauses) > 1
