"""Where finished answers go: in memory, and over a stream to a cache service."""

from contextlib import asynccontextmanager

import pytest

from millrace.cache.v1 import cache_pb2
from millrace.cache.v1.cache_pb2 import StoreReply, StoreRequest
from millrace.task.v1.task_pb2 import OUTCOME_KIND_CANCELLED, OUTCOME_KIND_COMPLETED, Outcome, Task, Usage
from services.chassis.batched import BatchedClient
from services.chassis.batched_server import each
from services.chassis.errors import ProblemError
from services.chassis.framed_server import framed_server
from services.chassis.framing import method
from services.tasklog.adapters.cache_answer_store import CacheAnswerStore
from services.tasklog.adapters.memory_answer_store import MemoryAnswerStore
from tests.support.components import free_port
from tests.support.waiting import eventually

STORE = method(cache_pb2, "Cache", "Store")
WHOLE = Outcome(kind=OUTCOME_KIND_COMPLETED, finish_reason="stop", usage=Usage(completion_tokens=7))
LESS = Outcome(kind=OUTCOME_KIND_CANCELLED, finish_reason="cancelled")


class Recorder:
    """A cache that keeps what it was asked."""

    def __init__(self):
        self.requests = []

    async def keep(self, item):
        self.requests.append(StoreRequest.FromString(item.payload))
        return StoreReply(stored=True).SerializeToString()

    @property
    def answers(self):
        return {request.key: request.answer.text for request in self.requests if request.HasField("answer")}

    @property
    def ended(self):
        return {request.key for request in self.requests if not request.HasField("answer")}


@pytest.fixture(params=["memory", "service"])
async def store(request):
    """A store, and what it was given: two names in memory, one over the wire."""
    if request.param == "memory":
        memory = MemoryAnswerStore()
        yield memory, memory
        return
    async with served(recorder := Recorder()) as answers:
        yield answers, recorder


@asynccontextmanager
async def served(recorder):
    async with (
        framed_server("127.0.0.1", 0, {STORE: each(recorder.keep)}) as server,
        BatchedClient([f"127.0.0.1:{server.port}"], STORE) as client,
    ):
        await eventually(lambda: client.ready)
        yield CacheAnswerStore(client)


def ticketed(key):
    task = Task(id="t")
    task.cache_ticket.key, task.cache_ticket.fence = key, "fence"
    return task


async def test_a_whole_answer_is_stored_and_anything_less_ends_the_flight(store):
    """Nobody is ever answered with half an answer."""
    answers, given = store
    await answers.store(ticketed(b"whole"), "Grüße", WHOLE)
    await answers.store(ticketed(b"empty"), "", WHOLE)
    await answers.store(ticketed(b"half"), "Grü", LESS)
    assert given.answers == {b"whole": "Grüße", b"empty": ""}
    assert given.ended == {b"half"}


async def test_the_ticket_and_the_usage_go_along():
    """The fence proves who led; a later hit tells what the answer once cost."""
    async with served(recorder := Recorder()) as answers:
        await answers.store(ticketed(b"whole"), "Hi", WHOLE)
    (request,) = recorder.requests
    assert (request.key, request.fence) == (b"whole", "fence")
    assert (request.answer.finish_reason, request.answer.usage) == ("stop", WHOLE.usage)


async def test_a_cache_that_is_away_says_so():
    """The end routine goes on without it."""
    async with BatchedClient([f"127.0.0.1:{free_port()}"], STORE) as client:
        with pytest.raises(ProblemError):
            await CacheAnswerStore(client).store(ticketed(b"whole"), "Hi", WHOLE)
