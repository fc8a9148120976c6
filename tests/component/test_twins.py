"""The first of a crowd asks the cache, the others share what it hears."""

import asyncio

import pytest

from millrace.cache.v1.cache_pb2 import Answer, LookupReply, LookupRequest, Scope
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.gateway.admission.twins import Twins


class Cache:
    """Answers when told to; counts questions."""

    def __init__(self, reply: LookupReply | ProblemError) -> None:
        self.reply, self.asked, self.go = reply, [], asyncio.Event()

    async def lookup(self, question: LookupRequest, deadline: float) -> LookupReply:
        self.asked.append(question.task)
        await self.go.wait()
        if isinstance(self.reply, ProblemError):
            raise self.reply
        return self.reply


def question(task: str, tenant: str = "ada", text: bytes = b"hello") -> LookupRequest:
    return LookupRequest(scope=Scope(tenant=tenant, model="m"), request=text, task=task)


async def crowd(cache: Cache, questions: list[LookupRequest]) -> list[LookupReply | None]:
    twins = Twins(cache.lookup, budget_s=1.0)
    asking = [asyncio.create_task(twins.ask(q)) for q in questions]
    await asyncio.sleep(0.01)
    cache.go.set()
    return await asyncio.gather(*asking)


async def test_of_a_crowd_one_asks_and_the_others_follow_it():
    """500 equal questions at once are one lookup; its task leads, the others name it."""
    cache = Cache(LookupReply(key=b"k", fence="f"))
    first, *others = await crowd(cache, [question(f"t{n}") for n in range(500)])
    assert cache.asked == ["t0"]
    assert first.fence == "f"
    assert {other.leader for other in others} == {"t0"}


async def test_a_known_answer_is_shared():
    """Everybody in the crowd gets the hit."""
    cache = Cache(LookupReply(key=b"k", answer=Answer(text="hi")))
    found = await crowd(cache, [question("t0"), question("t1")])
    assert [f.answer.text for f in found] == ["hi", "hi"]
    assert cache.asked == ["t0"]


@pytest.mark.parametrize("other", [question("t1", tenant="bob"), question("t1", text=b"hallo")])
async def test_nobody_shares_across_a_scope_or_a_request(other):
    """Another tenant, or another text, asks for itself."""
    cache = Cache(LookupReply(key=b"k", fence="f"))
    found = await crowd(cache, [question("t0"), other])
    assert cache.asked == ["t0", "t1"]
    assert all(f.fence for f in found)


async def test_without_the_cache_a_crowd_still_makes_one_engine_call():
    """The first asks the engine, the others follow it; the next crowd asks the cache again."""
    cache = Cache(ProblemError(Problem(ErrorCode.UNAVAILABLE, "away")))
    first, second = await crowd(cache, [question("t0"), question("t1")])
    assert first is None
    assert second.leader == "t0"
    await crowd(cache, [question("t2")])
    assert cache.asked == ["t0", "t2"]
