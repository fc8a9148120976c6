"""The router over loopback: memory in place of Kafka and Redis, signals set by the test."""

import asyncio
import time
import uuid

import pytest

from millrace.cache.v1.cache_pb2 import Answer
from millrace.config.v1.config_pb2 import ModelRoute, Pool, RouteTarget, Snapshot
from millrace.dispatch.v1.dispatch_pb2 import PoolSignal
from millrace.router.v1 import router_pb2
from millrace.router.v1.router_pb2 import AcceptReply, AcceptRequest
from millrace.task.v1.task_pb2 import (
    CACHE_MARK_EXACT,
    OUTCOME_KIND_COMPLETED,
    PRIORITY_CLASS_BATCH,
    PRIORITY_CLASS_CRITICAL,
    PRIORITY_CLASS_STANDARD,
    Task,
    Usage,
)
from services.chassis.batched import BatchedClient
from services.chassis.clock import now
from services.chassis.errors import ErrorCode, ProblemError
from services.chassis.framed_server import framed_server
from services.chassis.framing import method
from services.chassis.resp import Resp
from services.router.acceptance import Acceptance, World
from services.router.adapters.memory_pool_signals import MemoryPoolSignals
from services.router.adapters.memory_task_sink import MemoryTaskSink
from services.router.core.routes import Routes
from services.router.servicer import RouterServicer
from services.router.settings import RouterSettings
from services.tasklog.adapters.memory_task_control import MemoryTaskControl
from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.adapters.memory_usage_log import MemoryUsageLog
from services.tasklog.adapters.redis_task_control import RedisTaskControl
from services.tasklog.core.entries import Delta, Header, Terminal
from services.tasklog.ending import Destinations
from services.tasklog.ports import RedisAwayError
from tests.support.waiting import eventually

SNAPSHOT = Snapshot(
    pools=[Pool(name="main", slots=4, max_queue_s=10), Pool(name="spare", slots=4, max_queue_s=10)],
    routes=[ModelRoute(model="m", targets=[RouteTarget(pool="main", weight=1)], fallback="spare")],
)


class Control(MemoryTaskControl):
    """Claims in memory; `away` behaves as Redis that does not answer."""

    away = False

    async def claim(self, task, keep_s):
        if self.away:
            raise RedisAwayError("no connection")
        return await super().claim(task, keep_s)

    async def get(self, task):
        if self.away:
            raise RedisAwayError("no connection")
        return await super().get(task)


class Router:
    """One router process and a gateway's connection to it."""

    def __init__(self):
        self.control, self.sink, self.signals = Control(), MemoryTaskSink(), MemoryPoolSignals()
        self.log, self.usage = MemoryTokenLog(), MemoryUsageLog()
        world = World(self.control, self.sink, Destinations(self.log, self.usage), self.signals)
        self.acceptance = Acceptance(world, RouterSettings(produce_s=1.0), "router-test", jitter=lambda: 0.0)
        self.acceptance.routes = Routes.of(SNAPSHOT)
        self.client = None

    async def accept(self, task, answer=None, within_s=5.0):
        request = AcceptRequest(task=task, answer=answer)
        return AcceptReply.FromString(await self.client.call(request.SerializeToString(), now() + within_s))

    def lane(self, pool="main", klass="standard"):
        return [task.id for task in self.sink.lanes[f"tasks.{pool}.{klass}"]]

    async def state(self, task):
        await self.acceptance.drained()
        known = await self.control.get(task.id)
        return known.state if known else None


@pytest.fixture
async def router():
    router = Router()
    servicer = RouterServicer(router.acceptance)
    async with (
        framed_server("127.0.0.1", 0, servicer.methods) as server,
        BatchedClient([f"127.0.0.1:{server.port}"], method(router_pb2, "Router", "Accept")) as client,
    ):
        await eventually(lambda: client.ready)
        router.client = client
        yield router


def a_task(body=b"body", model="m", klass=PRIORITY_CLASS_STANDARD, deadline_s=600.0, **fields):
    fields = {
        "id": uuid.uuid4().hex[:26],
        "tenant": "acme",
        "body_hash": body,
        "model": model,
        "priority_class": klass,
    } | fields
    task = Task(**fields)
    task.submitted_at.FromNanoseconds(time.time_ns())
    task.deadline.FromNanoseconds(time.time_ns() + int(deadline_s * 1e9))
    return task


ANSWER = Answer(text="four", finish_reason="stop", usage=Usage(prompt_tokens=5, completion_tokens=1))
BUSY = PoolSignal(workers=1, slots=4, busy_slots=4, wait_s=16)


async def test_an_accepted_task_is_in_its_lane_with_its_pool(router):
    """The record carries the pool and the caller's trace; the claim says accepted."""
    task = a_task()
    payload = AcceptRequest(task=task).SerializeToString()
    reply = AcceptReply.FromString(await router.client.call(payload, now() + 5, "00-trace"))
    assert (reply.accepted.pool, reply.accepted.repeated) == ("main", False)
    (record,) = router.sink.lanes["tasks.main.standard"]
    assert (record.id, record.pool, record.traceparent) == (task.id, "main", "00-trace")
    assert await router.state(task) == "accepted"


async def test_a_repeated_submission_finds_its_task_and_produces_nothing(router):
    """Also after its end, and when the pool has too much to do or the model is gone: it was accepted before."""
    task = a_task()
    await router.accept(task)
    await router.acceptance.drained()
    assert (await router.accept(task)).accepted.repeated
    router.signals["main"] = BUSY
    assert (await router.accept(task)).accepted.repeated
    await router.control.ended(task.id)
    router.acceptance.routes = Routes.of(Snapshot())
    reply = await router.accept(task)
    assert (reply.accepted.repeated, reply.accepted.pool) == (True, "main")
    assert router.lane() == [task.id]


async def test_another_body_under_the_same_key_is_a_conflict(router):
    """Nothing is produced for it."""
    task = a_task()
    await router.accept(task)
    other = Task()
    other.CopyFrom(task)
    other.body_hash = b"else"
    assert (await router.accept(other)).rejected.code == "idempotency_conflict"
    assert router.lane() == [task.id]


async def test_a_produce_that_timed_out_but_reached_the_log_runs_once_and_a_retry_finds_it(router):
    """The first answer is unavailable, which means unknown; the retry is told that it is a repeated one.

    The record may be there twice: both name one task, and the second is a no-op for the dispatcher.
    """
    task = a_task()
    router.sink.loses_answers = True
    with pytest.raises(ProblemError) as error:
        await router.accept(task)
    assert error.value.problem.code is ErrorCode.UNAVAILABLE
    assert await router.state(task) == "claimed"
    router.sink.loses_answers = False
    reply = await router.accept(task)
    assert (reply.accepted.pool, reply.accepted.repeated) == ("main", True)
    assert set(router.lane()) == {task.id}
    assert await router.state(task) == "accepted"


async def test_once_a_produce_was_tried_nothing_refuses_the_retry(router):
    """Not overload, not a route that is gone, not another pool: the record may be in the first pool's lane already."""
    task = a_task()
    router.sink.loses_answers = True
    with pytest.raises(ProblemError):
        await router.accept(task)
    router.sink.loses_answers = False
    router.signals["main"] = BUSY
    assert (await router.accept(task)).accepted.pool == "main"
    router.signals["main"] = PoolSignal(workers=0)
    router.signals["spare"] = PoolSignal(workers=1)
    assert (await router.accept(task)).accepted.pool == "main"
    assert not router.lane("spare")


async def test_without_kafka_a_submission_is_unavailable_within_its_deadline(router):
    """And it is accepted by the retry after the broker came back."""
    task = a_task()
    router.sink.away = True
    with pytest.raises(ProblemError) as error:
        await router.accept(task)
    assert error.value.problem.code is ErrorCode.UNAVAILABLE
    router.sink.away = False
    assert (await router.accept(task)).accepted.repeated
    assert router.lane() == [task.id]


async def test_without_redis_new_work_is_refused(router):
    """Nothing reaches the log: without a claim a retry could not be told from another body."""
    router.control.away = True
    reply = await router.accept(a_task())
    assert reply.rejected.code == "unavailable"
    assert not router.lane()


@pytest.mark.real
async def test_a_full_redis_refuses_new_work(router, redis_url):
    """It keeps what it has and takes nothing new; afterwards the same key is accepted."""
    task = a_task()
    async with Resp(redis_url) as redis:
        await redis.wait_connected(5)
        control = RedisTaskControl(redis)
        router.control.claim, router.control.get = control.claim, control.get
        await redis.call("CONFIG", "SET", "maxmemory", 1)
        try:
            reply = await router.accept(task)
            assert reply.rejected.code == "unavailable"
            assert "OOM" in reply.rejected.message
        finally:
            await redis.call("CONFIG", "SET", "maxmemory", 0)
        assert not router.lane()
        assert (await router.accept(task)).accepted.pool == "main"


async def test_a_claim_that_took_longer_than_its_caller_waits_produces_nothing(router):
    """Its caller may have been refused by another router meanwhile, and then nothing may run."""
    claim = router.control.claim

    async def slow(task, keep_s):
        await asyncio.sleep(0.1)
        return await claim(task, keep_s)

    router.control.claim = slow
    with pytest.raises(ProblemError):
        await router.accept(a_task(), within_s=0.05)
    await asyncio.sleep(0.15)
    assert not router.lane()


async def test_unknown_models_and_expired_tasks_are_refused_by_name(router):
    """Before anything is claimed."""
    unknown, late = a_task(model="gpt"), a_task(deadline_s=-1)
    assert (await router.accept(unknown)).rejected.code == "unknown_model"
    assert (await router.accept(late)).rejected.code == "expired"
    assert await router.state(unknown) is None
    assert await router.state(late) is None


async def test_before_the_first_configuration_the_router_is_unavailable(router):
    """It does not guess."""
    router.acceptance.routes = None
    assert (await router.accept(a_task())).rejected.code == "unavailable"


async def test_too_much_waiting_work_sheds_below_critical_and_says_when_to_retry(router):
    """A refused task is not claimed: nothing of it is left, and its key may try again."""
    router.signals["main"] = BUSY
    batch = a_task(klass=PRIORITY_CLASS_BATCH)
    reply = await router.accept(batch)
    assert reply.rejected.code == "shed"
    assert reply.rejected.retry_after.seconds == 6
    assert await router.state(batch) is None
    assert (await router.accept(a_task(klass=PRIORITY_CLASS_CRITICAL))).accepted.pool == "main"
    del router.signals["main"]
    assert not (await router.accept(batch)).accepted.repeated


async def test_the_fallback_pool_takes_over_while_the_chosen_one_has_no_workers(router):
    """And gives back when they return."""
    router.signals["main"], router.signals["spare"] = PoolSignal(workers=0), PoolSignal(workers=2)
    assert (await router.accept(a_task())).accepted.pool == "spare"
    router.signals["main"] = PoolSignal(workers=1, slots=4)
    assert (await router.accept(a_task())).accepted.pool == "main"


async def test_a_cache_hit_is_logged_as_a_whole_life_and_accounted(router):
    """Header, text and end are in the task's log, usage is committed, Kafka's lanes see nothing."""
    router.signals["main"] = BUSY
    task = a_task()
    reply = await router.accept(task, ANSWER)
    assert (reply.accepted.pool, reply.accepted.repeated) == ("main", False)
    header, delta, terminal = await router.log.read(task.id)
    assert isinstance(header, Header)
    assert isinstance(delta, Delta)
    assert isinstance(terminal, Terminal)
    assert delta.text == "four"
    assert (terminal.outcome.kind, terminal.outcome.cache) == (OUTCOME_KIND_COMPLETED, CACHE_MARK_EXACT)
    assert terminal.outcome.usage.completion_tokens == 1
    assert [(r.task, r.tenant, r.pool) for r in router.usage.records] == [(task.id, "acme", "main")]
    assert not router.lane()
    assert await router.state(task) == "ended"
    assert (await router.accept(task, ANSWER)).accepted.repeated
    assert len(router.usage.records) == 1


async def test_a_cache_hit_whose_usage_is_not_committed_is_unknown_and_its_retry_completes_it(router):
    """Accepted means logged and accounted."""
    task = a_task()
    router.usage.away = True
    with pytest.raises(ProblemError) as error:
        await router.accept(task, ANSWER, within_s=0.1)
    assert error.value.problem.code is ErrorCode.UNAVAILABLE
    router.usage.away = False
    await asyncio.sleep(0.1)
    assert (await router.accept(task, ANSWER)).accepted.repeated
    assert len(router.usage.newest()) == 1
    assert sum(isinstance(entry, Terminal) for entry in await router.log.read(task.id)) == 1


async def test_a_task_that_runs_already_is_not_answered_from_the_cache(router):
    """The first try went to the lane unseen and a worker began: the retry's hit is fenced and the task goes on."""
    task = a_task()
    router.sink.loses_answers = True
    with pytest.raises(ProblemError):
        await router.accept(task)
    await router.log.begin(task.id, Header(int(now() * 1000) << 20, "worker", "n", router.log.run_id), 60.0)
    assert (await router.accept(task, ANSWER)).accepted.repeated
    assert not any(isinstance(entry, Delta | Terminal) for entry in await router.log.read(task.id))
    assert not router.usage.records


async def test_a_follower_goes_to_its_leaders_pool_and_is_never_shed(router):
    """It takes no slot."""
    leader = a_task()
    router.signals["main"], router.signals["spare"] = PoolSignal(workers=0), PoolSignal(workers=2)
    await router.accept(leader)
    router.signals["main"], router.signals["spare"] = PoolSignal(workers=2, slots=1), BUSY
    follower = a_task(joined=leader.id)
    reply = await router.accept(follower)
    assert (reply.accepted.pool, reply.accepted.joined) == ("spare", leader.id)
    assert [task.joined for task in router.sink.lanes["tasks.spare.standard"]] == ["", leader.id]


async def test_a_follower_that_overtakes_its_leader_waits_for_the_claim(router):
    """Both left the cache at the same moment; the leader's submission is on its way."""
    leader = a_task()
    followers = [asyncio.create_task(router.accept(a_task(joined=leader.id))) for _ in range(20)]
    await asyncio.sleep(0.02)
    await router.accept(leader)
    assert all([(await reply).accepted.pool == "main" for reply in followers])
    assert [task.joined for task in router.sink.lanes["tasks.main.standard"]].count(leader.id) == 20


@pytest.mark.parametrize("leader", ["unknown", "foreign", "itself"])
async def test_a_follower_without_a_leader_runs_by_itself(router, leader):
    """The leader was refused or lost; or it is no leader for this tenant."""
    task = a_task(joined="nobodyatall")
    if leader == "foreign":
        other = a_task(tenant="rival")
        await router.accept(other)
        task.joined = other.id
    elif leader == "itself":
        task.joined = task.id
    reply = await router.accept(task)
    assert (reply.accepted.pool, reply.accepted.joined) == ("main", "")
    assert router.sink.lanes["tasks.main.standard"][-1].joined == ""


async def test_an_incomplete_task_is_a_mistake_of_the_caller(router):
    """Named as such, and the stream goes on."""
    with pytest.raises(ProblemError) as error:
        await router.accept(Task(id="x"))
    assert error.value.problem.code is ErrorCode.INVALID_REQUEST
    assert (await router.accept(a_task())).accepted.pool == "main"


async def test_one_slow_commit_holds_up_nobody(router):
    """Each submission of a batch is answered when its own record is committed."""
    put, release = router.sink.put, asyncio.Event()

    async def put_slowly(task, timeout_s):
        if task.priority_class == PRIORITY_CLASS_BATCH:
            await release.wait()
        await put(task, timeout_s)

    router.sink.put = put_slowly
    slow = asyncio.create_task(router.accept(a_task(klass=PRIORITY_CLASS_BATCH)))
    replies = await asyncio.gather(*(router.accept(a_task()) for _ in range(50)))
    assert all(reply.HasField("accepted") for reply in replies)
    assert not slow.done()
    release.set()
    assert (await slow).HasField("accepted")
