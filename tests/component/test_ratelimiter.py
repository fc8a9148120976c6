"""The rate limiter over loopback gRPC, on buckets in memory."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from millrace.limits.v1 import limits_pb2 as pb
from services.chassis.batched import BatchedClient
from services.chassis.clock import now
from services.chassis.errors import ErrorCode, ProblemError
from services.chassis.framed_server import framed_server
from services.chassis.framing import method
from services.chassis.resp import RedisAwayError
from services.ratelimiter.adapters.memory_bucket_store import MemoryBucketStore
from services.ratelimiter.servicer import RateLimiterServicer
from tests.support.waiting import eventually


class CountingStore(MemoryBucketStore):
    """Counts its calls; may be away."""

    def __init__(self):
        super().__init__(now)
        self.calls, self.away = 0, False

    async def decide(self, requests):
        self.calls += 1
        if self.away:
            raise RedisAwayError("gone")
        return await super().decide(requests)


def bucket(name, cost=1.0, rate=1.0, burst=3.0):
    made = pb.Bucket(name=name, rate=rate, burst=burst, cost=cost)
    made.period.seconds = 3600
    return made


@asynccontextmanager
async def limiter(store):
    servicer = RateLimiterServicer(store)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(framed_server("127.0.0.1", 0, servicer.methods))
        client = await stack.enter_async_context(
            BatchedClient([f"127.0.0.1:{server.port}"], method(pb, "RateLimiter", "Check"))
        )
        await eventually(lambda: client.ready)

        async def check(*buckets):
            payload = pb.CheckRequest(buckets=buckets).SerializeToString()
            return pb.CheckReply.FromString(await client.call(payload, now() + 5))

        yield check


async def test_requests_beyond_the_burst_are_limited_and_told_when_to_retry():
    """Three of four pass; the fourth names the bucket, the wait and what is left."""
    async with limiter(CountingStore()) as check:
        replies = [await check(bucket("t")) for _ in range(4)]
    assert [r.allowed for r in replies] == [True, True, True, False]
    assert replies[3].refused_by == "t"
    assert replies[3].retry_after.ToTimedelta().total_seconds() == pytest.approx(3600, abs=5)
    assert [r.states[0].remaining for r in replies] == pytest.approx([2, 1, 0, 0], abs=0.01)


async def test_a_wave_of_requests_costs_few_calls_to_the_store():
    """What gathers while one batch is decided is the next batch."""
    store = CountingStore()
    async with limiter(store) as check:
        replies = await asyncio.gather(*(check(bucket("wide", burst=1000)) for _ in range(400)))
    assert all(r.allowed for r in replies)
    assert store.calls < 40


async def test_mixed_answers_share_a_batch():
    """A limit is an answer, a mistake is that caller's error, and neither disturbs the others."""
    async with limiter(CountingStore()) as check:
        good, limited, wrong = await asyncio.gather(
            check(bucket("a")), check(bucket("b", cost=4)), check(bucket("", cost=1)), return_exceptions=True
        )
    assert good.allowed
    assert not limited.allowed
    assert not limited.HasField("retry_after")
    assert isinstance(wrong, ProblemError)
    assert wrong.problem.code is ErrorCode.INVALID_REQUEST
    assert wrong.problem.message == "buckets[0].name is missing"


async def test_a_limiter_without_redis_is_unavailable_not_a_verdict():
    """Neither open nor closed: the gateway limits by itself, and asks again."""
    store = CountingStore()
    store.away = True
    async with limiter(store) as check:
        with pytest.raises(ProblemError) as error:
            await check(bucket("a"))
        assert error.value.problem.code is ErrorCode.UNAVAILABLE
        store.away = False
        assert (await check(bucket("a"))).allowed
