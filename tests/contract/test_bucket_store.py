"""BucketStore: memory and Redis decide alike."""

import asyncio
import random
import uuid

import pytest

from services.chassis.clock import now
from services.chassis.resp import RedisAwayError, Resp
from services.limits.core.gcra import Limit
from services.limits.core.request import Bucket
from services.ratelimiter.adapters.memory_bucket_store import MemoryBucketStore
from services.ratelimiter.adapters.redis_bucket_store import RedisBucketStore

HOURLY = Limit(rate=10, period_s=36_000, burst=10)  # a unit an hour: nothing is gained while a test runs


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
async def store(request):
    if request.param == "memory":
        yield MemoryBucketStore(now)
        return
    async with Resp(request.getfixturevalue("redis_url")) as redis:
        await redis.wait_connected(5)
        yield RedisBucketStore(redis)


@pytest.fixture
def bucket():
    tag = uuid.uuid4().hex
    return lambda name, cost, limit=HOURLY: Bucket(f"{{{tag}}}:{name}", limit, cost)


async def test_a_batch_is_decided_in_order(store, bucket):
    """Each request meets what the ones before it left; one that is refused leaves room for a smaller one."""
    decisions = await store.decide([[bucket("a", 6)], [bucket("a", 6)], [bucket("a", 4)], [bucket("a", 1)]])
    assert [d.allowed for d in decisions] == [True, False, True, False]
    assert [round(d.verdicts[0].remaining) for d in decisions] == [4, 4, 0, 0]


async def test_a_refused_request_takes_from_none_of_its_buckets(store, bucket):
    """All or none, also when the last bucket refuses."""
    refused, after = await store.decide([[bucket("a", 5), bucket("b", 11)], [bucket("a", 10), bucket("b", 10)]])
    assert refused.refused_by == 1
    assert refused.verdicts[1].retry_after_s is None
    assert after.allowed


async def test_state_lasts_between_batches(store, bucket):
    """What was taken stays taken, and the wait is told."""
    await store.decide([[bucket("a", 10)]])
    (decision,) = await store.decide([[bucket("a", 1)]])
    assert not decision.allowed
    assert decision.verdicts[0].retry_after_s == pytest.approx(3600, abs=5)
    assert decision.verdicts[0].reset_s == pytest.approx(36_000, abs=5)


async def test_units_come_back_with_time(store, bucket):
    """A bucket that is full after 50 ms is full after 50 ms."""
    quick = Limit(rate=20, period_s=1, burst=1)
    first, second = await store.decide([[bucket("a", 1, quick)]] * 2)
    assert (first.allowed, second.allowed) == (True, False)
    assert 0 < second.verdicts[0].retry_after_s <= 0.05
    await asyncio.sleep(second.verdicts[0].retry_after_s + 0.005)
    (third,) = await store.decide([[bucket("a", 1, quick)]])
    assert third.allowed


async def test_asking_takes_nothing(store, bucket):
    """Cost 0."""
    await store.decide([[bucket("a", 0)]] * 3)
    (decision,) = await store.decide([[bucket("a", 10)]])
    assert decision.allowed


async def test_a_bucket_named_twice_is_taken_from_twice(store, bucket):
    """Within one request too."""
    fits, exceeds = await store.decide([[bucket("a", 5)] * 2, [bucket("b", 5)] * 3])
    assert fits.allowed
    assert exceeds.refused_by == 2


async def test_nothing_to_decide_is_no_request(store, bucket):
    """An empty batch, and a request without limits."""
    assert await store.decide([]) == []
    assert (await store.decide([[]]))[0].allowed


async def test_concurrent_batches_on_an_empty_bucket_admit_exactly_its_burst(store, bucket):
    """Two hundred ask at once for ten units: ten get one."""
    batches = await asyncio.gather(*(store.decide([[bucket("a", 1)]] * 10) for _ in range(20)))
    assert sum(decision.allowed for batch in batches for decision in batch) == 10


async def test_a_large_batch_is_one_call(store, bucket):
    """Five hundred requests over four buckets each."""
    batch = [[bucket(f"{n}-{m}", 1) for m in range(4)] for n in range(500)]
    assert all(decision.allowed for decision in await store.decide(batch))


@pytest.mark.real
async def test_redis_agrees_with_the_reference_on_random_batches(redis_url):
    """The script and the core are one arithmetic: the same sequence gives the same verdicts."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw, tag = random.Random(seed), uuid.uuid4().hex
    limits = [Limit(rate=draw.uniform(0.001, 0.01), period_s=60, burst=draw.uniform(1, 50)) for _ in range(6)]
    async with Resp(redis_url) as redis:
        await redis.wait_connected(5)
        real, reference = RedisBucketStore(redis), MemoryBucketStore(now)
        for _ in range(30):
            batch = [
                [
                    Bucket(f"{{{tag}}}:{b}", limits[b], draw.uniform(0, limits[b].burst / 2))
                    for b in draw.choices(range(6), k=draw.randint(1, 4))
                ]
                for _ in range(draw.randint(1, 5))
            ]
            got, expected = await real.decide(batch), await reference.decide(batch)
            assert [d.refused_by for d in got] == [d.refused_by for d in expected]
            for one, other in zip(got, expected, strict=True):
                assert [v.remaining for v in one.verdicts] == pytest.approx(
                    [v.remaining for v in other.verdicts], abs=0.01
                )


@pytest.mark.real
async def test_a_bucket_is_forgotten_once_it_is_full(redis_url):
    """The key lives as long as its debt and a second."""
    async with Resp(redis_url) as redis:
        await redis.wait_connected(5)
        tag = uuid.uuid4().hex
        await RedisBucketStore(redis).decide([[Bucket(tag, Limit(rate=1, period_s=1, burst=30), 30)]])
        assert 20_000 < await redis.call("PTTL", f"limit:{tag}") <= 31_000


async def test_without_redis_the_store_is_away():
    """At once, so that gateways can go on by themselves."""
    async with Resp("redis://127.0.0.1:1/0") as redis:
        with pytest.raises(RedisAwayError):
            await RedisBucketStore(redis).decide([[Bucket("a", HOURLY, 1)]])


@pytest.mark.real
async def test_a_full_redis_counts_as_away(redis_url):
    """It refuses to write: nobody is admitted on a debt that is not kept."""
    async with Resp(redis_url) as redis:
        await redis.wait_connected(5)
        await redis.call("CONFIG", "SET", "maxmemory", 1)
        try:
            with pytest.raises(RedisAwayError, match="OOM"):
                await RedisBucketStore(redis).decide([[Bucket(uuid.uuid4().hex, HOURLY, 1)]])
        finally:
            await redis.call("CONFIG", "SET", "maxmemory", 0)
