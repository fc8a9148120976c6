"""Batched streams: many calls in one message, answered in any order, failing alone."""

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from millrace.batch.v1.batch_pb2 import Item, Reply, Request
from millrace.limits.v1 import limits_pb2
from services.chassis import batched
from services.chassis.batched import BatchedClient
from services.chassis.batched_server import each, whole
from services.chassis.clock import now
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.framed_server import framed_server
from services.chassis.framing import method
from services.gateway.main import ACCEPT_GAP_S, LOOKUP_GAP_S
from tests.support.waiting import eventually

CHECK = method(limits_pb2, "RateLimiter", "Check")


class Echo:
    """Answers with the payload; `slow` waits for release, `bad` is a problem, `bug` raises."""

    def __init__(self):
        self.release = asyncio.Event()
        self.messages = 0
        self.cancelled = 0

    async def answer(self, item):
        if item.payload == b"slow":
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if item.payload == b"bad":
            raise ProblemError(Problem(ErrorCode.SHED, "too much"))
        if item.payload == b"bug":
            raise KeyError("x")
        return item.payload

    def counted(self, connection):
        caller = each(self.answer)(connection)
        take = caller.take

        def counting(message):
            self.messages += 1
            take(message)

        caller.take = counting
        return caller


@asynccontextmanager
async def served(echo, port=0, *, grace_s=0.0):
    async with framed_server("127.0.0.1", port, {CHECK: echo.counted}, grace_s=grace_s) as server:
        yield server


@asynccontextmanager
async def client_of(*ports, gap_s=batched.GAP_S):
    async with BatchedClient([f"127.0.0.1:{p}" for p in ports], CHECK, gap_s) as client:
        await eventually(lambda: all(replica.up for replica in client._replicas))
        yield client


async def raw(port, *chunks):
    """What a server says to bytes that no client of ours would send; b"" is a cut connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for chunk in chunks:
        writer.write(chunk)
        await asyncio.sleep(0.02)
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


def framed(message):
    return len(message).to_bytes(4, "big") + message


async def test_calls_that_gather_share_messages():
    """500 calls at once need far fewer messages than calls, and each gets its own answer."""
    echo = Echo()
    async with served(echo) as server, client_of(server.port) as client:
        answers = await asyncio.gather(*[client.call(b"%d" % i, now() + 5) for i in range(500)])
        assert answers == [b"%d" % i for i in range(500)]
        assert echo.messages < 50


async def test_each_hop_of_a_prompt_gathers_for_less_time_than_the_one_before():
    """A bunch that the limiter's client sent together must not wait for a whole gap again at the cache and at the router."""
    assert batched.GAP_S > LOOKUP_GAP_S > ACCEPT_GAP_S
    waits = {}
    for gap_s in (2.0, 0.0):
        async with served(Echo()) as server, client_of(server.port, gap_s=gap_s) as client:
            await client.call(b"first", now() + 5)
            began = time.monotonic()
            await client.call(b"second", now() + 5)
            waits[gap_s] = time.monotonic() - began
    assert waits[2.0] > 1.5
    assert waits[0.0] < 1.0


async def test_a_slow_call_holds_up_no_other():
    """Answers come in the order they are ready."""
    echo = Echo()
    async with served(echo) as server, client_of(server.port) as client:
        slow = asyncio.create_task(client.call(b"slow", now() + 5))
        assert await client.call(b"quick", now() + 5) == b"quick"
        assert not slow.done()
        echo.release.set()
        assert await slow == b"slow"


async def test_a_problem_of_one_call_is_an_answer_to_that_call():
    """A coded refusal arrives as it was meant, a bug as `internal`; the stream goes on."""
    async with served(Echo()) as server, client_of(server.port) as client:
        with pytest.raises(ProblemError) as refused:
            await client.call(b"bad", now() + 5)
        assert refused.value.problem == Problem(ErrorCode.SHED, "too much")
        with pytest.raises(ProblemError) as bug:
            await client.call(b"bug", now() + 5)
        assert bug.value.problem.code == ErrorCode.INTERNAL
        assert await client.call(b"fine", now() + 5) == b"fine"


async def test_no_answer_by_the_deadline_is_unavailable():
    """The caller's deadline bounds its wait."""
    async with served(Echo()) as server, client_of(server.port) as client:
        with pytest.raises(ProblemError) as late:
            await client.call(b"slow", now() + 0.05)
        assert late.value.problem.code == ErrorCode.UNAVAILABLE
        assert not client._replicas[0].waiting


async def test_an_answer_that_came_while_the_loop_was_held_up_counts(monkeypatch):
    """The server was in time; that nobody read the answer is not its fault."""
    monkeypatch.setattr(
        batched, "LAST_LOOK_S", 1.0
    )  # server and client share this process: neither has a turn meanwhile
    async with served(Echo()) as server, client_of(server.port) as client:
        call = asyncio.create_task(client.call(b"quick", now() + 0.2))
        await asyncio.sleep(0)  # on its way
        time.sleep(0.05)
        await asyncio.sleep(0)
        time.sleep(0.3)
        assert await call == b"quick"


async def test_a_dead_server_fails_what_waits_and_is_found_again():
    """Calls under way fail at once as unavailable; a server that comes back at the address is used again."""
    first = served(Echo())
    server = await first.__aenter__()
    async with client_of(server.port) as client:
        waiting = asyncio.create_task(client.call(b"slow", now() + 30))
        await asyncio.sleep(0.05)
        await first.__aexit__(None, None, None)
        with pytest.raises(ProblemError) as cut:
            await waiting
        assert cut.value.problem.code == ErrorCode.UNAVAILABLE
        async with served(Echo(), server.port), asyncio.timeout(5):
            while not client.ready:
                await asyncio.sleep(0.01)
            assert await client.call(b"again", now() + 5) == b"again"


async def test_the_least_outstanding_replica_is_asked():
    """A replica that does not answer gets no more than its share."""
    stuck, quick = Echo(), Echo()
    async with served(stuck) as first, served(quick) as second, client_of(first.port, second.port) as client:
        waiting = [asyncio.create_task(client.call(b"slow", now() + 5)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert len(client._replicas[0].waiting) == len(client._replicas[1].waiting) == 1
        stuck.release.set()
        quick.release.set()
        await asyncio.gather(*waiting)


async def test_a_name_stands_for_all_its_addresses_now_and_later(monkeypatch):
    """Replicas that come are connected to, those that went are forgotten; one that is not named any more but answers is used."""
    monkeypatch.setattr(batched, "RESOLVE_S", 0.02)
    named = set()

    async def resolve(name):
        assert name == "router:8104"
        if not named:
            raise OSError("no such name")
        return set(named)

    monkeypatch.setattr(batched, "_resolve", resolve)
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(served(Echo())) for _ in range(2)]
        third = served(Echo())
        away = await third.__aenter__()
        async with BatchedClient(["router:8104"], CHECK) as client, asyncio.timeout(10):
            ups = lambda: {replica.address for replica in client._replicas if replica.up}  # noqa: E731
            await asyncio.sleep(0.05)
            assert not client.ready
            named |= {f"127.0.0.1:{server.port}" for server in (first, second, away)}
            while ups() != named:
                await asyncio.sleep(0.01)
            gone = f"127.0.0.1:{away.port}"
            named.discard(gone)
            await asyncio.sleep(0.1)
            assert gone in ups()
            await third.__aexit__(None, None, None)
            while gone in {replica.address for replica in client._replicas}:
                await asyncio.sleep(0.01)
            assert await client.call(b"fine", now() + 5) == b"fine"


async def test_a_batch_handled_as_a_whole_keeps_each_items_answer():
    """`whole` pairs answers with calls by position; when it fails, every item of the message fails."""

    async def answer(items):
        if any(item.payload == b"bug" for item in items):
            raise KeyError("x")
        return [Problem(ErrorCode.LIMITED, "no") if item.payload == b"bad" else item.payload for item in items]

    async with framed_server("127.0.0.1", 0, {CHECK: whole(answer)}) as server, client_of(server.port) as client:
        answers = await asyncio.gather(
            *[client.call(p, now() + 5) for p in (b"a", b"bad", b"c")], return_exceptions=True
        )
        assert answers[0] == b"a"
        assert answers[1].problem.code == ErrorCode.LIMITED
        assert answers[2] == b"c"
        with pytest.raises(ProblemError) as failed:
            await client.call(b"bug", now() + 5)
        assert failed.value.problem.code == ErrorCode.INTERNAL


async def test_a_server_that_stops_answers_what_it_was_asked():
    """Within its grace; what takes longer is cut and unavailable to the caller."""
    echo = Echo()
    serving = served(echo, grace_s=5)
    server = await serving.__aenter__()
    async with client_of(server.port) as client:
        waiting = asyncio.create_task(client.call(b"slow", now() + 30))
        await asyncio.sleep(0.05)
        leaving = asyncio.create_task(serving.__aexit__(None, None, None))
        await asyncio.sleep(0.05)
        echo.release.set()
        assert await waiting == b"slow"
        await leaving


async def test_work_for_a_caller_that_went_is_dropped():
    """Nobody would hear the answer."""
    echo = Echo()
    async with served(echo) as server:
        async with client_of(server.port) as client:
            waiting = asyncio.create_task(client.call(b"slow", now() + 30))
            await eventually(lambda: echo.messages)
        waiting.cancel()
        await eventually(lambda: echo.cancelled)


async def test_a_server_that_accepts_but_says_nothing_is_not_up():
    """A stopped process: its kernel takes connections and bytes, nobody reads them."""

    async def silent_one(reader, writer):
        with contextlib.closing(writer):
            await reader.read()

    async with await asyncio.start_server(silent_one, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        async with BatchedClient([f"127.0.0.1:{port}"], CHECK) as client:
            await asyncio.sleep(0.1)
            assert not client.ready
            with pytest.raises(ProblemError) as away:
                await client.call(b"a", now() + 5)
            assert away.value.problem.code == ErrorCode.UNAVAILABLE


async def test_a_server_that_falls_silent_is_connected_to_anew(monkeypatch):
    """It owes answers and says nothing: the next connection may reach a live one."""
    monkeypatch.setattr(batched, "SILENT_S", 0.1)
    connections = []

    async def mute(reader, writer):
        connections.append(writer)
        writer.write(framed(b""))
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            await reader.read()

    silent = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with silent, client_of(silent.sockets[0].getsockname()[1]) as client:
        for _ in range(3):
            with pytest.raises(ProblemError):
                await client.call(b"a", now() + 0.08)
        await eventually(lambda: len(connections) >= 2)


async def test_whoever_speaks_another_language_is_cut_off():
    """An unknown method, a message that is none, one beyond the limit: the others are served on."""
    async with served(Echo()) as server, client_of(server.port) as client:
        assert b"not served here" in await raw(server.port, framed(b"no.such.Method"))
        assert await raw(server.port, framed(CHECK.encode()), framed(b"\xff\xff\xff")) in {b"", framed(b"")}
        assert await raw(server.port, b"\x7f\xff\xff\xff") == b""
        assert await client.call(b"fine", now() + 5) == b"fine"


async def test_messages_arrive_whole_however_the_bytes_are_cut():
    """One byte at a time, and two messages in one piece."""
    message = Request(items=[Item(call_id=7, payload=b"ab")]).SerializeToString()
    bytes_sent = framed(CHECK.encode()) + framed(message) + framed(message)
    async with served(Echo()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for i in range(len(bytes_sent) - 3):
            writer.write(bytes_sent[i : i + 1])
            await asyncio.sleep(0)
        writer.write(bytes_sent[-3:])
        results = []
        async with asyncio.timeout(5):
            while len(results) < 2:
                size = int.from_bytes(await reader.readexactly(4), "big")
                results += Reply.FromString(await reader.readexactly(size)).results
        assert [(r.call_id, r.result) for r in results] == [(7, b"ab"), (7, b"ab")]
        writer.close()
