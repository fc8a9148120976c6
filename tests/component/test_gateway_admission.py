"""Before the queue: limits, cache, router; and what becomes of tasks whose readers leave."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration

from millrace.cache.v1.cache_pb2 import Answer, LookupReply, LookupRequest
from millrace.config.v1.config_pb2 import Limit
from millrace.inference.v1.inference_pb2 import SubmitRequest
from millrace.limits.v1.limits_pb2 import BucketState, CheckReply, CheckRequest
from millrace.router.v1.router_pb2 import AcceptReply, AcceptRequest, Rejected
from services.limits.local_limiter import LocalLimiter
from tests.support.gateway_lab import KEY, Lab, LabSocket, lab, snapshot
from tests.support.waiting import eventually


@pytest.fixture
async def it() -> AsyncIterator[Lab]:
    config = snapshot()
    limits = config.tenants[0].limits
    limits.key_requests.CopyFrom(Limit(rate=2, period=Duration(seconds=60), burst=2))
    limits.tenant_tokens.CopyFrom(Limit(rate=1000, period=Duration(seconds=1), burst=100_000))
    async with lab(config=config) as running:
        yield running


async def post(it: Lab, **body: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and JSON of a submission."""
    data = msgspec.json.encode({"model": "tiny", "input": "x" * 40} | body)
    async with it.client.post(f"{it.http}/v1/tasks", data=data, headers=it.auth()) as response:
        return response.status, dict(response.headers), await response.json()


async def refused_by_grpc(it: Lab, request: SubmitRequest) -> tuple[grpc.StatusCode, str | None]:
    """Status and message."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await it.inference.Submit(request, metadata=(("authorization", f"Bearer {KEY}"),))
    return error.value.code(), error.value.details()


# -- limits ---------------------------------------------------------------------------------------------------------------


async def test_the_limiter_is_asked_for_key_and_tenant(it: Lab) -> None:
    """One request and the estimated tokens (bytes / 4 + max_tokens), in one call, and the headers say what is left."""
    asked: list[CheckRequest] = []

    def limit(request: CheckRequest) -> CheckReply:
        asked.append(request)
        states = [
            BucketState(name=b.name, limit=b.burst, remaining=1, reset=Duration(seconds=30)) for b in request.buckets
        ]
        return CheckReply(allowed=True, states=states)

    it.backend.limit = limit
    status, headers, _ = await post(it, max_tokens=50)
    assert status == 202
    assert {b.name: b.cost for b in asked[0].buckets} == {"{local}:key:main:requests": 1, "{local}:tokens": 60}
    assert headers["RateLimit-Policy"] == '"key-requests";q=2;w=60, "tenant-tokens";q=100000;w=100'
    assert headers["RateLimit"] == '"key-requests";r=1;t=30, "tenant-tokens";r=1;t=30'


async def test_over_a_limit_the_answer_says_which_and_when(it: Lab) -> None:
    """429 `limited` with the limit's name, Retry-After and the headers; nothing reaches the router."""

    def limit(request: CheckRequest) -> CheckReply:
        return CheckReply(refused_by=request.buckets[0].name, retry_after=Duration(seconds=12))

    it.backend.limit = limit
    status, headers, body = await post(it)
    assert (status, body["error"]["code"], body["error"]["retryable"]) == (429, "limited", True)
    assert "key-requests" in body["error"]["message"]
    assert 12 <= int(headers["Retry-After"]) <= 14
    assert not it.backend.tasks


@pytest.fixture(params=["limiter", "alone"])
async def narrow(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """At most 500 tokens at once, by the limiter or by the gateway alone."""
    config = snapshot()
    config.tenants[0].limits.tenant_tokens.CopyFrom(Limit(rate=1000, period=Duration(seconds=1), burst=500))
    async with lab(config=config) as running:
        running.backend.limit = lambda asked: LocalLimiter().check(asked, 1000.0)
        if request.param == "alone":
            running.backend.away.add("limiter")
        yield running


async def test_what_a_limit_never_admits_is_refused_for_good(narrow: Lab) -> None:
    """More than the burst never passes: every client is told the field, the limit and the cost, and not to retry."""
    prompt = "x" * 40
    status, headers, body = await post(narrow, input=prompt, max_tokens=600)
    error = body["error"]
    assert (status, error["code"], error["param"]) == (400, "invalid_request", "max_tokens")
    assert all(said in error["message"] for said in ("tenant-tokens", "610", "500"))
    assert (error["retryable"], headers["x-should-retry"]) == (False, "false")
    assert "Retry-After" not in headers
    chat = {"model": "tiny", "messages": [{"role": "user", "content": prompt}], "max_tokens": 600}
    url, data = f"{narrow.http}/v1/chat/completions", msgspec.json.encode(chat)
    async with narrow.client.post(url, data=data, headers=narrow.auth()) as response:
        assert (response.status, await response.json()) == (400, body)
    socket = await narrow.socket()
    await socket.send(t="submit", model="tiny", input=prompt, max_tokens=600)
    told = await socket.next()
    assert (told["code"], told["field"], told["retryable"]) == ("invalid_request", "max_tokens", False)
    request = SubmitRequest(model="tiny", input=prompt, max_tokens=600)
    assert await refused_by_grpc(narrow, request) == (grpc.StatusCode.INVALID_ARGUMENT, error["message"])
    assert not narrow.backend.tasks
    assert (await post(narrow, input=prompt, max_tokens=490))[0] == 202


async def test_without_its_limiter_a_gateway_limits_by_itself(it: Lab) -> None:
    """Neither open nor closed: the configured burst passes, the next is limited; back is back."""
    it.backend.away.add("limiter")
    assert [(await post(it))[0] for _ in range(3)] == [202, 202, 429]
    it.backend.away.clear()
    assert (await post(it))[0] == 202


# -- router ---------------------------------------------------------------------------------------------------------------


async def test_without_a_router_nobody_knows_and_the_key_finds_out(it: Lab) -> None:
    """`unavailable` is retryable; the retry with the same key is accepted once, as the same task."""
    it.backend.away.add("router")
    status, headers, body = await post(it, key="k")
    assert (status, body["error"]["code"], body["error"]["retryable"]) == (503, "unavailable", True)
    assert headers["Retry-After"] == "1"
    it.backend.away.clear()
    (first, second) = [(await post(it, key="k"))[2]["task"] for _ in range(2)]
    assert first == second


async def test_a_record_names_the_reader_that_waits(it: Lab) -> None:
    """The route of the submitting connection rides in the record; a plain submission has none."""
    await post(it)
    socket = await it.socket()
    await socket.submit()
    without, with_one = it.backend.tasks.values()
    assert not without.HasField("route")
    assert (with_one.route.address, with_one.route.handle > 0) == ("lab", True)
    assert (with_one.estimated_prompt_tokens, with_one.estimated_output_tokens) == (1, 64)


# -- cache ----------------------------------------------------------------------------------------------------------------


async def test_a_hit_is_acknowledged_with_its_mark_and_replayed(it: Lab) -> None:
    """An exact hit: `ack` with state completed and cache exact, then the answer as any other."""
    it.backend.found = lambda _: LookupReply(key=b"k", answer=Answer(text="known", finish_reason="stop"))
    socket = await it.socket()
    ack = await socket.submit(temperature=0)
    assert (ack["state"], ack["cache"]) == ("completed", "exact")
    delta, done = await socket.next(), await socket.next()
    assert (delta["text"], done["outcome"], done["cache"]) == ("known", "completed", "exact")


async def test_a_twin_is_joined_and_read_live(it: Lab) -> None:
    """A running twin: the record names it, `ack` says coalesced, and its text comes while it runs."""
    leader_socket, socket = await it.socket(), await it.socket()
    leader = (await leader_socket.submit(temperature=0))["task"]
    it.backend.found = lambda _: LookupReply(key=b"k", leader=leader)
    ack = await socket.submit(temperature=0)
    assert ack["cache"] == "coalesced"
    assert it.backend.tasks[ack["task"]].joined == leader
    worker = it.worker(leader)
    await worker.begin(5)
    await worker.write("shared")
    delta = await socket.until("delta")
    assert (delta["task"], delta["text"]) == (ack["task"], "shared")


async def test_the_first_to_ask_leads_and_stores(it: Lab) -> None:
    """Nobody knows: the record carries the ticket under which the answer may be stored."""
    it.backend.found = lambda _: LookupReply(key=b"k", fence="f")
    _, _, body = await post(it, temperature=0)
    ticket = it.backend.tasks[body["task"]].cache_ticket
    assert (ticket.key, ticket.fence) == (b"k", "f")


async def test_a_refused_leader_gives_the_lead_up(it: Lab) -> None:
    """A task that will never run must not keep others waiting for its answer."""

    async def shedding(_: AcceptRequest) -> AcceptReply:
        return AcceptReply(rejected=Rejected(code="shed", message="too much"))

    it.backend.found = lambda _: LookupReply(key=b"k", fence="f")
    it.backend.accepting = shedding
    assert (await post(it, temperature=0))[0] == 503
    assert [(s.key, s.fence, s.HasField("answer")) for s in it.backend.stored] == [(b"k", "f", False)]


@pytest.mark.parametrize("body", [{}, {"temperature": 0, "cache": "bypass"}])
async def test_what_is_not_repeatable_never_asks_the_cache(it: Lab, body: dict[str, Any]) -> None:
    """Sampled answers, and those who say bypass, neither read nor join."""
    asked: list[LookupRequest] = []
    it.backend.found = lambda request: asked.append(request) or LookupReply()  # type: ignore[func-returns-value]
    assert (await post(it, **body))[0] == 202
    assert not asked


async def test_only_from_the_cache_is_never_work_for_the_engine(it: Lab) -> None:
    """With `only` a miss is an error, the lead that the question gave is given back, and away is a miss."""
    it.backend.found = lambda _: LookupReply(key=b"k", fence="f")
    status, _, body = await post(it, temperature=0, cache="only")
    assert (status, body["error"]["param"]) == (503, "cache")
    assert len(it.backend.stored) == 1
    it.backend.away.add("cache")
    assert (await post(it, temperature=0, cache="only"))[0] == 503
    assert not it.backend.tasks


async def test_a_cache_that_is_away_is_a_miss(it: Lab) -> None:
    """Without its cache everything is generated."""
    it.backend.away.add("cache")
    assert (await post(it, temperature=0))[0] == 202


# -- disconnect policies --------------------------------------------------------------------------------------------------


async def leave(it: Lab, socket: LabSocket) -> None:
    """The client goes without a word, and the gateway notices."""
    before = len(it.gateway.sessions.sessions)
    await socket.raw.close()
    await eventually(lambda: len(it.gateway.sessions.sessions) < before)


async def test_keep_keeps_and_cancel_cancels(it: Lab) -> None:
    """The platform never guesses: `keep` runs on, `cancel` is cancelled when its reader leaves."""
    keeping, cancelling = await it.socket(), await it.socket()
    await keeping.submit()
    task = (await cancelling.submit(on_disconnect="cancel"))["task"]
    await leave(it, keeping)
    await leave(it, cancelling)
    await eventually(lambda: it.signals.cancels == [("tiny", task)])


async def test_a_client_that_comes_back_in_time_keeps_its_task(it: Lab) -> None:
    """`cancel_after_s`: a reader that came back here or elsewhere stops the clock, a reader that stays away does not."""
    policy = {"cancel_after_s": 0.5}
    one, two, three = [await it.socket() for _ in range(3)]
    back = (await one.submit(on_disconnect=policy))["task"]
    elsewhere = (await two.submit(on_disconnect=policy))["task"]
    lost = (await three.submit(on_disconnect=policy))["task"]
    it.presence.elsewhere[elsewhere] = 1
    for socket in (one, two, three):
        await leave(it, socket)
    again = await it.socket()
    await again.send(t="resume", task=back)
    await eventually(lambda: it.signals.cancels)
    await asyncio.sleep(0.6)
    assert it.signals.cancels == [("tiny", lost)]
    it.presence.elsewhere.clear()
    await eventually(lambda: len(it.signals.cancels) == 2)
    assert it.signals.cancels[1] == ("tiny", elsewhere)


async def test_a_task_that_ended_is_not_cancelled(it: Lab) -> None:
    """The policy ends with the task."""
    socket = await it.socket()
    task = (await socket.submit(on_disconnect="cancel"))["task"]
    await it.answer(task, "done")
    await socket.until("done")
    await leave(it, socket)
    assert not it.signals.cancels


async def test_a_client_that_leaves_before_the_acknowledgment_still_has_a_policy(it: Lab) -> None:
    """The submission goes on without its client, then the policy decides."""
    gate = asyncio.Event()

    async def slow(request: AcceptRequest) -> AcceptReply:
        await gate.wait()
        return await it.backend.claim(request)

    it.backend.accepting = slow
    socket = await it.socket()
    await socket.send(t="submit", model="tiny", input="x", on_disconnect="cancel")
    await socket.send(t="ping")
    await socket.until("pong")
    await leave(it, socket)
    gate.set()
    await eventually(lambda: it.signals.cancels)
    assert [task for _, task in it.signals.cancels] == list(it.backend.tasks)
