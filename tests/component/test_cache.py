"""The cache over loopback gRPC, on answers in memory."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from millrace.cache.v1 import cache_pb2 as pb
from millrace.task.v1.task_pb2 import PRIORITY_CLASS_BATCH, PRIORITY_CLASS_CRITICAL, PRIORITY_CLASS_STANDARD, Usage
from services.cache.adapters.memory_answer_cache import MemoryAnswerCache
from services.cache.adapters.redis_answer_cache import RedisAnswerCache
from services.cache.servicer import CacheServicer
from services.cache.settings import CacheSettings
from services.chassis.batched import BatchedClient
from services.chassis.clock import now
from services.chassis.errors import ErrorCode, ProblemError
from services.chassis.framed_server import framed_server
from services.chassis.framing import method
from services.chassis.resp import RedisAwayError, Resp
from tests.support.waiting import eventually


class Caller:
    """A gateway's side."""

    def __init__(self, lookups, stores):
        self._lookups, self._stores = lookups, stores

    async def look(
        self, task, *, request=b"2+2", tenant="acme", model="m", revision="1", klass=PRIORITY_CLASS_STANDARD
    ):
        scope = pb.Scope(tenant=tenant, model=model, model_revision=revision)
        asked = pb.LookupRequest(scope=scope, request=request, task=task, priority_class=klass)
        return pb.LookupReply.FromString(await self._lookups.call(asked.SerializeToString(), now() + 5))

    async def store(self, reply, text, finish_reason="stop"):
        asked = pb.StoreRequest(key=reply.key, fence=reply.fence)
        if text is not None:
            asked.answer.CopyFrom(pb.Answer(text=text, finish_reason=finish_reason, usage=Usage(completion_tokens=7)))
        return pb.StoreReply.FromString(await self._stores.call(asked.SerializeToString(), now() + 5)).stored


@asynccontextmanager
async def serving(*stores):
    """One replica per store, one caller per replica."""
    async with AsyncExitStack() as stack:
        callers = []
        for store in stores:
            servicer = CacheServicer(store, CacheSettings())
            server = await stack.enter_async_context(framed_server("127.0.0.1", 0, servicer.methods))
            address = [f"127.0.0.1:{server.port}"]
            lookups = await stack.enter_async_context(BatchedClient(address, method(pb, "Cache", "Lookup")))
            saves = await stack.enter_async_context(BatchedClient(address, method(pb, "Cache", "Store")))
            for client in (lookups, saves):
                await eventually(lambda client=client: client.ready)
            callers.append(Caller(lookups, saves))
        yield callers


async def test_the_same_question_is_answered_from_the_cache():
    """Text, finish reason and usage come back, with the answer's age."""
    async with serving(MemoryAnswerCache()) as (cache,):
        lead = await cache.look("one")
        assert lead.WhichOneof("found") == "fence"
        assert await cache.store(lead, "4")
        hit = await cache.look("two")
    assert (hit.answer.text, hit.answer.finish_reason, hit.answer.usage.completion_tokens) == ("4", "stop", 7)
    assert 0 <= hit.answer.age_s < 5


@pytest.mark.parametrize("other", [{"tenant": "rival"}, {"model": "n"}, {"revision": "2"}, {"request": b"2+3"}])
async def test_nothing_is_answered_across_a_scope(other):
    """Another tenant, model, revision or request is another question: no answer, no leader."""
    async with serving(MemoryAnswerCache()) as (cache,):
        lead = await cache.look("one")
        assert (await cache.look("two", **other)).WhichOneof("found") == "fence"
        await cache.store(lead, "4")
        assert (await cache.look("three", **other)).leader == "two"


@pytest.mark.parametrize("finish_reason", ["cancelled", "expired", "error", ""])
async def test_only_complete_answers_are_stored(finish_reason):
    """Anything else ends the flight, so that the next one leads."""
    async with serving(MemoryAnswerCache()) as (cache,):
        lead = await cache.look("one")
        assert not await cache.store(lead, "4 and", finish_reason)
        assert (await cache.look("two")).WhichOneof("found") == "fence"


async def test_an_answer_cut_at_max_tokens_is_complete():
    """`length` is what the request asked for; max_tokens is part of the request."""
    async with serving(MemoryAnswerCache()) as (cache,):
        assert await cache.store(await cache.look("one"), "4 and", "length")


async def test_an_empty_answer_is_an_answer():
    """A model may say nothing."""
    async with serving(MemoryAnswerCache()) as (cache,):
        assert await cache.store(await cache.look("one"), "")
        assert (await cache.look("two")).WhichOneof("found") == "answer"


async def test_a_leader_without_an_answer_ends_its_flight():
    """A store without an answer."""
    async with serving(MemoryAnswerCache()) as (cache,):
        lead = await cache.look("one")
        assert (await cache.look("two")).leader == "one"
        assert not await cache.store(lead, None)
        assert (await cache.look("three")).WhichOneof("found") == "fence"


async def test_urgent_work_does_not_join_batch_work():
    """And everybody joins urgent work."""
    async with serving(MemoryAnswerCache()) as (cache,):
        await cache.look("slow", klass=PRIORITY_CLASS_BATCH)
        assert (await cache.look("urgent", klass=PRIORITY_CLASS_CRITICAL)).WhichOneof("found") == "fence"
        assert (await cache.look("usual")).leader == "urgent"


@pytest.mark.real
async def test_five_hundred_identical_lookups_at_once_over_two_replicas_name_one_leader(redis_url):
    """One fence, 499 times the same leader."""
    async with Resp(redis_url) as one, Resp(redis_url) as other:
        await asyncio.gather(one.wait_connected(5), other.wait_connected(5))
        async with serving(RedisAnswerCache(one), RedisAnswerCache(other)) as callers:
            replies = await asyncio.gather(
                *(callers[n % 2].look(f"task{n}", request=b"five hundred") for n in range(500))
            )
    kinds = [reply.WhichOneof("found") for reply in replies]
    assert (kinds.count("fence"), kinds.count("leader")) == (1, 499)
    leader = f"task{kinds.index('fence')}"
    assert {reply.leader for reply in replies if reply.WhichOneof("found") == "leader"} == {leader}


async def test_a_lookup_without_a_tenant_is_refused():
    """No code path leaves a part of the scope out."""
    async with serving(MemoryAnswerCache()) as (cache,):
        for wrong in ({"tenant": ""}, {"klass": 0}):
            with pytest.raises(ProblemError) as error:
                await cache.look("one", **wrong)
            assert error.value.problem.code is ErrorCode.INVALID_REQUEST


async def test_a_cache_without_redis_is_unavailable_which_callers_take_as_a_miss():
    """It never blocks a request."""

    class Away(MemoryAnswerCache):
        async def look(self, asks, now):
            raise RedisAwayError("gone")

        async def end(self, endings, now):
            raise RedisAwayError("gone")

    async with serving(Away()) as (cache,):
        for call in (cache.look("one"), cache.store(pb.LookupReply(key=b"k" * 20, fence="f"), "4")):
            with pytest.raises(ProblemError) as error:
                await call
            assert error.value.problem.code is ErrorCode.UNAVAILABLE
