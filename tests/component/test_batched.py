"""Batched streams: many calls in one message, answered in any order, failing alone."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from millrace.limits.v1.limits_pb2_grpc import RateLimiterServicer, RateLimiterStub, add_RateLimiterServicer_to_server
from services.chassis.batched import BatchedClient, serve_batched, serve_batches
from services.chassis.clock import now
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.grpc_server import grpc_server


class EchoServicer(RateLimiterServicer):
    """Answers with the payload; `slow` waits for release, `bad` is a problem, `bug` raises."""

    def __init__(self):
        self.release = asyncio.Event()
        self.messages = 0

    async def answer(self, item):
        if item.payload == b"slow":
            await self.release.wait()
        if item.payload == b"bad":
            raise ProblemError(Problem(ErrorCode.SHED, "too much"))
        if item.payload == b"bug":
            raise KeyError("x")
        return item.payload

    async def Check(self, requests, context):
        async def counted():
            async for request in requests:
                self.messages += 1
                yield request

        async for reply in serve_batched(counted(), self.answer):
            yield reply


class WholeServicer(RateLimiterServicer):
    async def Check(self, requests, context):
        async def answer(items):
            return [Problem(ErrorCode.LIMITED, "no") if i.payload == b"bad" else i.payload for i in items]

        async for reply in serve_batches(requests, answer):
            yield reply


@asynccontextmanager
async def served(servicer, port=0):
    async with grpc_server(
        "127.0.0.1",
        port,
        lambda s: add_RateLimiterServicer_to_server(servicer, s),
        ["millrace.limits.v1.RateLimiter"],
        grace_s=0,
    ) as server:
        yield server


@asynccontextmanager
async def client_of(*ports):
    async with BatchedClient([f"127.0.0.1:{p}" for p in ports], lambda ch: RateLimiterStub(ch).Check) as client:
        async with asyncio.timeout(5):
            while not all(s.up for s in client._streams):
                await asyncio.sleep(0.01)
        yield client


async def test_calls_that_gather_share_messages():
    """500 calls at once need far fewer messages than calls, and each gets its own answer."""
    servicer = EchoServicer()
    async with served(servicer) as server, client_of(server.port) as client:
        answers = await asyncio.gather(*[client.call(b"%d" % i, now() + 5) for i in range(500)])
        assert answers == [b"%d" % i for i in range(500)]
        assert servicer.messages < 50


async def test_a_slow_call_holds_up_no_other():
    """Answers come in the order they are ready."""
    servicer = EchoServicer()
    async with served(servicer) as server, client_of(server.port) as client:
        slow = asyncio.create_task(client.call(b"slow", now() + 5))
        assert await client.call(b"quick", now() + 5) == b"quick"
        assert not slow.done()
        servicer.release.set()
        assert await slow == b"slow"


async def test_a_problem_of_one_call_is_an_answer_to_that_call():
    """A coded refusal arrives as it was meant, a bug as `internal`; the stream goes on."""
    async with served(EchoServicer()) as server, client_of(server.port) as client:
        with pytest.raises(ProblemError) as refused:
            await client.call(b"bad", now() + 5)
        assert refused.value.problem == Problem(ErrorCode.SHED, "too much")
        with pytest.raises(ProblemError) as bug:
            await client.call(b"bug", now() + 5)
        assert bug.value.problem.code == ErrorCode.INTERNAL
        assert await client.call(b"fine", now() + 5) == b"fine"


async def test_no_answer_by_the_deadline_is_unavailable():
    """The caller's deadline bounds its wait."""
    async with served(EchoServicer()) as server, client_of(server.port) as client:
        with pytest.raises(ProblemError) as late:
            await client.call(b"slow", now() + 0.05)
        assert late.value.problem.code == ErrorCode.UNAVAILABLE
        assert not client._streams[0].waiting


async def test_a_dead_server_fails_what_waits_and_is_found_again():
    """Calls under way fail at once as unavailable; a server that comes back at the address is used again."""
    first = served(EchoServicer())
    server = await first.__aenter__()
    async with client_of(server.port) as client:
        waiting = asyncio.create_task(client.call(b"slow", now() + 30))
        await asyncio.sleep(0.05)
        await first.__aexit__(None, None, None)
        with pytest.raises(ProblemError) as cut:
            await waiting
        assert cut.value.problem.code == ErrorCode.UNAVAILABLE
        async with served(EchoServicer(), server.port), asyncio.timeout(5):
            while not client.ready:
                await asyncio.sleep(0.01)
            assert await client.call(b"again", now() + 5) == b"again"


async def test_the_least_outstanding_replica_is_asked():
    """A replica that does not answer gets no more than its share."""
    stuck, quick = EchoServicer(), EchoServicer()
    async with served(stuck) as first, served(quick) as second, client_of(first.port, second.port) as client:
        waiting = [asyncio.create_task(client.call(b"slow", now() + 5)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert len(client._streams[0].waiting) == len(client._streams[1].waiting) == 1
        stuck.release.set()
        quick.release.set()
        await asyncio.gather(*waiting)


async def test_a_batch_handled_as_a_whole_keeps_each_items_answer():
    """serve_batches pairs answers with calls by position."""
    async with served(WholeServicer()) as server, client_of(server.port) as client:
        answers = await asyncio.gather(
            *[client.call(p, now() + 5) for p in (b"a", b"bad", b"c")], return_exceptions=True
        )
        assert answers[0] == b"a"
        assert answers[1].problem.code == ErrorCode.LIMITED
        assert answers[2] == b"c"
