"""AnswerCache: memory and Redis give the same answers and name the same leaders."""

import asyncio
import uuid

import pytest

from services.cache.adapters.memory_answer_cache import MemoryAnswerCache
from services.cache.adapters.redis_answer_cache import RedisAnswerCache
from services.cache.core.flight import Flight, Join, Lead
from services.cache.core.lookup import Ask, Hit
from services.cache.ports import Ending
from services.chassis.clock import now
from services.chassis.resp import RedisAwayError, Resp

CRITICAL, STANDARD, BATCH = 1, 2, 3


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
async def cache(request):
    if request.param == "memory":
        yield MemoryAnswerCache()
        return
    async with Resp(request.getfixturevalue("redis_url")) as redis:
        await redis.wait_connected(5)
        yield RedisAnswerCache(redis)


@pytest.fixture
def key():
    return uuid.uuid4().bytes


async def look(cache, key, task, rank=STANDARD, lead_s=60.0):
    (found,) = await cache.look([Ask(key, Flight(rank, f"f-{task}", task), lead_s)], now())
    return found


async def end(cache, key, fence, answer, keep_s=60.0):
    (stored,) = await cache.end([Ending(key, fence, answer, keep_s)], now())
    return stored


async def test_a_miss_leads_and_its_answer_is_everybodys(cache, key):
    """Lead, join, store, hit; the answer comes back byte for byte with the time it was stored at."""
    assert await look(cache, key, "one") == Lead("f-one")
    assert await look(cache, key, "two") == Join("one")
    before = now()
    assert await end(cache, key, "f-one", b"\0answer\xff")
    hit = await look(cache, key, "three")
    assert isinstance(hit, Hit)
    assert hit.answer == b"\0answer\xff"
    assert before <= hit.stored_at <= now()


async def test_nobody_joins_a_leader_of_a_lower_class(cache, key):
    """The urgent one takes the flight over; the old leader may not store any more."""
    await look(cache, key, "slow", BATCH)
    assert await look(cache, key, "urgent", CRITICAL) == Lead("f-urgent")
    assert await look(cache, key, "usual", STANDARD) == Join("urgent")
    assert not await end(cache, key, "f-slow", b"late")
    assert await look(cache, key, "usual", STANDARD) == Join("urgent")


async def test_a_leader_that_asks_again_keeps_its_fence(cache, key):
    """A retry of the same submission."""
    await look(cache, key, "one")
    (found,) = await cache.look([Ask(key, Flight(STANDARD, "other", "one"), 60.0)], now())
    assert found == Lead("f-one")
    assert await end(cache, key, "f-one", b"x")


async def test_a_leader_without_an_answer_ends_its_flight(cache, key):
    """The next one leads."""
    await look(cache, key, "one")
    assert not await end(cache, key, "f-one", None)
    assert await look(cache, key, "two") == Lead("f-two")


async def test_a_foreign_fence_ends_nothing(cache, key):
    """The flight stays its leader's."""
    await look(cache, key, "one")
    assert not await end(cache, key, "f-somebody", None)
    assert await look(cache, key, "two") == Join("one")


async def test_a_dead_leaders_time_runs_out(cache, key):
    """The next one leads; the old leader may store again once nobody leads."""
    await look(cache, key, "dead", lead_s=0.05)
    await asyncio.sleep(0.08)
    assert await look(cache, key, "next") == Lead("f-next")
    assert not await end(cache, key, "f-dead", b"late")
    await end(cache, key, "f-next", None)
    assert await end(cache, key, "f-dead", b"late")


async def test_an_answer_expires(cache, key):
    """Then the question is open again."""
    await look(cache, key, "one")
    await end(cache, key, "f-one", b"x", keep_s=0.05)
    await asyncio.sleep(0.08)
    assert await look(cache, key, "two") == Lead("f-two")


async def test_an_answer_without_a_fence_is_stored_and_ends_no_flight(cache, key):
    """A task that never led may store."""
    await look(cache, key, "one")
    assert await end(cache, key, "", b"x")
    assert isinstance(await look(cache, key, "two"), Hit)


async def test_keys_do_not_meet(cache):
    """One pipeline, one answer for each ask, in order."""
    keys = [uuid.uuid4().bytes for _ in range(20)]
    asks = [Ask(k, Flight(STANDARD, f"f{i}", f"t{i}"), 60.0) for i, k in enumerate(keys)]
    assert await cache.look(asks, now()) == [Lead(f"f{i}") for i in range(20)]
    assert await cache.end([Ending(k, f"f{i}", b"%d" % i, 60.0) for i, k in enumerate(keys)], now()) == [True] * 20
    hits = await cache.look(asks, now())
    assert [hit.answer for hit in hits] == [b"%d" % i for i in range(20)]


@pytest.mark.real
async def test_five_hundred_identical_lookups_through_two_replicas_name_one_leader(redis_url, key):
    """Each replica has its own connection; Redis decides."""
    async with Resp(redis_url) as one, Resp(redis_url) as other:
        await asyncio.gather(one.wait_connected(5), other.wait_connected(5))
        replicas = [RedisAnswerCache(one), RedisAnswerCache(other)]
        found = await asyncio.gather(*(look(replicas[n % 2], key, f"t{n}") for n in range(500)))
        leads = [n for n, what in enumerate(found) if isinstance(what, Lead)]
        assert len(leads) == 1
        assert {what for n, what in enumerate(found) if n not in leads} == {Join(f"t{leads[0]}")}


@pytest.mark.real
async def test_a_redis_that_forgot_the_scripts_is_told_again(redis_url, key):
    """After a restart."""
    async with Resp(redis_url) as redis:
        await redis.wait_connected(5)
        await redis.call("SCRIPT", "FLUSH")
        assert await look(RedisAnswerCache(redis), key, "one") == Lead("f-one")


async def test_without_redis_the_cache_is_away(key):
    """At once: the caller takes it as a miss."""
    async with Resp("redis://127.0.0.1:1/0") as redis:
        with pytest.raises(RedisAwayError):
            await look(RedisAnswerCache(redis), key, "one")


@pytest.mark.real
async def test_a_full_redis_still_gives_answers_and_counts_as_away_for_the_rest(redis_url, key):
    """A hit writes nothing."""
    async with Resp(redis_url) as redis:
        await redis.wait_connected(5)
        cache = RedisAnswerCache(redis)
        await end(cache, key, "", b"x")
        await redis.call("CONFIG", "SET", "maxmemory", 1)
        try:
            assert isinstance(await look(cache, key, "one"), Hit)
            with pytest.raises(RedisAwayError, match="OOM"):
                await look(cache, uuid.uuid4().bytes, "one")
        finally:
            await redis.call("CONFIG", "SET", "maxmemory", 0)
