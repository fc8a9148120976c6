"""The HTTP doors: tasks, SSE, OpenAI's shape, and the document that describes them."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest
from aiohttp import ClientResponse

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from millrace.router.v1.router_pb2 import AcceptReply, AcceptRequest, Rejected
from millrace.task.v1.task_pb2 import OUTCOME_KIND_FAILED, Outcome
from services.gateway.reading import places
from services.gateway.settings import GatewaySettings
from tests.support.gateway_lab import KEY, OTHER_KEY, Lab, lab
from tests.support.waiting import eventually


@pytest.fixture
async def it() -> AsyncIterator[Lab]:
    async with lab(GatewaySettings(heartbeat_s=0.1)) as running:
        yield running


@pytest.fixture
async def sdk(it: Lab) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{it.http}/v1", max_retries=0) as client:
        yield client


async def call(it: Lab, method: str, path: str, body: Any = None, **headers: str) -> tuple[ClientResponse, Any]:
    """The response and its JSON."""
    data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with it.client.request(method, it.http + path, data=data, headers=it.auth() | names) as response:
        return response, await response.json()


async def events(response: ClientResponse, *, comments: bool = False) -> AsyncIterator[dict[str, str]]:
    """Server-sent events as they come; comments, if asked for, have the name `comment`."""
    while block := await response.content.readuntil(b"\n\n"):
        if block.startswith(b":") and not comments:
            continue
        lines = block.decode().strip().splitlines()
        yield dict(("comment", line[2:]) if line.startswith(":") else tuple(line.split(": ", 1)) for line in lines)
        if b"[DONE]" in block or b"event: done" in block:
            return


async def soon(it: Lab, count: int = 1) -> str:
    """The id of the task that was accepted last, once there are so many."""
    await eventually(lambda: len(it.backend.tasks) >= count)
    return list(it.backend.tasks)[-1]


# -- tasks ----------------------------------------------------------------------------------------------------------------


async def test_a_task_is_accepted_looked_at_and_read(it: Lab) -> None:
    """POST gives 202 with the place to look; GET shows state and text so far, at last the end."""
    response, body = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi"}, Idempotency_Key="k")
    assert response.status == 202
    assert response.headers["Location"] == f"/v1/tasks/{body['task']}"
    assert (body["state"], body["key"]) == ("queued", "k")
    worker = it.worker(body["task"])
    await worker.begin(5)
    await worker.write("so far")
    _, view = await call(it, "GET", response.headers["Location"])
    assert (view["state"], view["text"], view["offset"]) == ("running", "so far", 6)
    await worker.end()
    _, view = await call(it, "GET", response.headers["Location"])
    assert (view["state"], view["finish_reason"], view["usage"]["completion_tokens"]) == ("completed", "stop", 2)


async def test_a_waiting_task_has_a_place(it: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """GET asks the pool's owner for position and eta, and does without when it says nothing."""
    _, body = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi"})
    asking = asyncio.create_task(call(it, "GET", f"/v1/tasks/{body['task']}"))
    await eventually(lambda: it.signals.watched)
    it.gateway.places.on_status(TaskStatus(task=body["task"], state="queued", position=7, eta_s=2.5))
    _, view = await asking
    assert (view["state"], view["position"], view["eta_s"]) == ("queued", 7, 2.5)
    monkeypatch.setattr(places, "PATIENCE_S", 0.01)
    _, other = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi"})
    _, view = await call(it, "GET", f"/v1/tasks/{other['task']}")
    assert (view["state"], view["position"]) == ("queued", None)


async def test_the_same_key_with_another_body_is_a_conflict(it: Lab) -> None:
    """The same key and body: the same task; another body: 409. Key and header must not differ."""
    first = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi"}, Idempotency_Key="k")
    again = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi", "key": "k"})
    assert first[1]["task"] == again[1]["task"]
    response, body = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "ho"}, Idempotency_Key="k")
    assert (response.status, body["error"]["code"]) == (409, "idempotency_conflict")
    response, body = await call(
        it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi", "key": "a"}, Idempotency_Key="b"
    )
    assert (response.status, body["error"]["param"]) == (400, "key")


async def test_delete_cancels(it: Lab) -> None:
    """DELETE answers 202; the wish stands in Redis and the pool's owner knows."""
    _, body = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi"})
    response, state = await call(it, "DELETE", f"/v1/tasks/{body['task']}")
    assert (response.status, state["state"]) == (202, "cancelling")
    assert await it.log.cancel_wished(body["task"])
    assert it.signals.cancels == [("tiny", body["task"])]


@pytest.mark.parametrize(
    ("asked", "body", "expected"),
    [
        ("POST /v1/tasks", b"{", (400, "invalid_request", None)),
        ("POST /v1/tasks", b"\xff", (400, "invalid_request", None)),
        ("POST /v1/tasks", {"model": "tiny", "input": "x", "foo": 1}, (400, "invalid_request", "foo")),
        ("POST /v1/tasks", {"model": "none", "input": "x"}, (404, "unknown_model", "model")),
        ("POST /v1/tasks", b"[" * 1_040_000, (413, "too_large", None)),
        ("POST /v1/tasks", {"model": "tiny", "input": "x" * 930_000}, (413, "too_large", "input")),
        ("GET /v1/tasks/" + "a" * 26, None, (404, "unknown_task", "task")),
        ("GET /v1/tasks/" + "a" * 26 + "/stream", None, (404, "unknown_task", "task")),
        ("DELETE /v1/tasks/x", None, (404, "unknown_task", "task")),
        ("GET /v1/models/none", None, (404, "unknown_model", "model")),
        ("GET /v1/nothing", None, (404, "invalid_request", None)),
        ("PUT /v1/tasks", None, (405, "invalid_request", None)),
        ("GET /v1/ws", None, (400, "invalid_request", "Upgrade")),
    ],
)
async def test_every_refusal_has_one_shape(
    it: Lab, asked: str, body: Any, expected: tuple[int, str, str | None]
) -> None:
    """Status, code and field as the table says, in one JSON shape."""
    response, answer = await call(it, *asked.split(" "), body)
    error = answer["error"]
    assert (response.status, error["code"], error["param"]) == expected
    assert error["retryable"] is False
    assert response.headers["x-should-retry"] == "false"


async def test_a_foreign_tenant_finds_nothing(it: Lab) -> None:
    """Another tenant's key sees no task, no model that is not its own, and may not use it."""
    _, body = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi"})
    foreign = it.auth(OTHER_KEY)
    response, _ = await call(it, "GET", f"/v1/tasks/{body['task']}", **foreign)
    assert response.status == 404
    _, models = await call(it, "GET", "/v1/models", **foreign)
    assert [m["id"] for m in models["data"]] == ["tiny"]
    response, answer = await call(it, "POST", "/v1/tasks", {"model": "sim", "input": "hi"}, **foreign)
    assert (response.status, answer["error"]["code"]) == (403, "forbidden")
    response, answer = await call(
        it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi", "class": "critical"}, **foreign
    )
    assert (response.status, answer["error"]["param"]) == (403, "class")


async def test_no_key_is_unauthenticated(it: Lab) -> None:
    """401 with `WWW-Authenticate`, whatever was asked."""
    for headers in ({}, {"Authorization": "Bearer mr_wrong"}):
        async with it.client.get(f"{it.http}/v1/models", headers=headers) as response:
            assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert (await response.json())["error"]["code"] == "unauthenticated"


async def test_a_refusal_by_overload_says_when(it: Lab) -> None:
    """`shed` is 503 with Retry-After and the time in the body."""

    async def shedding(_: AcceptRequest) -> AcceptReply:
        reply = AcceptReply(rejected=Rejected(code="shed", message="standard work waits 70 s"))
        reply.rejected.retry_after.FromMilliseconds(1500)
        return reply

    it.backend.accepting = shedding
    response, body = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi"})
    assert (response.status, response.headers["Retry-After"]) == (503, "2")
    assert body["error"]["code"] == "shed"
    assert body["error"]["retry_after_s"] >= 1.5


# -- SSE ------------------------------------------------------------------------------------------------------------------


async def test_a_stream_breaks_and_goes_on_where_it_was(it: Lab) -> None:
    """Events are the WebSocket's objects with cursors as ids; `Last-Event-ID` continues after the last one seen."""
    _, body = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi"})
    url = f"{it.http}/v1/tasks/{body['task']}/stream"
    worker = it.worker(body["task"])
    await worker.begin(5)
    await worker.write("öne ")
    async with it.client.get(url, headers=it.auth()) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        first = await anext(events(response))
    data = msgspec.json.decode(first["data"])
    assert first["event"] == data["t"] == "delta"
    assert first["id"] == f"{data['gen']}:5"
    await worker.write("two")
    async with it.client.get(url, headers=it.auth() | {"Last-Event-ID": first["id"]}) as response:
        stream = events(response)
        assert msgspec.json.decode((await anext(stream))["data"])["text"] == "two"
        await worker.end()
        assert (await anext(stream))["event"] == "done"
    async with it.client.get(url + "?offset=0", headers=it.auth()) as response:
        whole = [e["data"] async for e in events(response)]
    assert msgspec.json.decode(whole[0])["text"] == "öne two"


async def test_a_silent_stream_is_kept_alive(it: Lab) -> None:
    """While nothing comes a comment does, each heartbeat."""
    _, body = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi"})
    async with it.client.get(f"{it.http}/v1/tasks/{body['task']}/stream", headers=it.auth()) as response:
        assert (await anext(events(response, comments=True)))["comment"] == "keep-alive"


async def test_a_wrong_cursor_is_refused(it: Lab) -> None:
    """A Last-Event-ID that was never sent is an error, not a stream from somewhere."""
    _, body = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi"})
    response, answer = await call(it, "GET", f"/v1/tasks/{body['task']}/stream", Last_Event_ID="5")
    assert (response.status, answer["error"]["param"]) == (400, "Last-Event-ID")


# -- OpenAI ---------------------------------------------------------------------------------------------------------------


async def test_an_openai_client_gets_an_answer(it: Lab, sdk: openai.AsyncOpenAI) -> None:
    """An unmodified client: text, finish reason, usage, and the task's id in a header."""
    asking = asyncio.create_task(
        sdk.chat.completions.with_raw_response.create(
            model="tiny",
            messages=[
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "hello "}, {"type": "text", "text": "you"}]},
            ],
            temperature=0.5,
            max_completion_tokens=9,
            n=1,
            user="me",
        )
    )
    task = await soon(it)
    record = it.backend.tasks[task]
    assert [(m.role, m.content) for m in record.messages] == [("system", "be brief"), ("user", "hello you")]
    assert record.sampling.max_tokens == 9
    assert record.on_disconnect.cancel
    await it.answer(task, "Hel", "lo!")
    raw = await asking
    completion = raw.parse()
    assert raw.headers["x-millrace-task"] == task
    assert completion.id == f"chatcmpl-{task}"
    assert completion.choices[0].message.content == "Hello!"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 5


async def test_an_openai_client_streams(it: Lab, sdk: openai.AsyncOpenAI) -> None:
    """Chunks as the text comes, the finish reason, usage if asked for, then the end."""
    stream = await sdk.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    await it.answer(await soon(it), "Hel", "lo!")
    chunks = [chunk async for chunk in stream]
    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(texts) == "Hello!"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


async def test_a_break_in_the_middle_is_a_typed_error(it: Lab, sdk: openai.AsyncOpenAI) -> None:
    """A stream that cannot go on ends with an error chunk that names the code: `restarted`, `engine_failed`."""
    stream = await sdk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True)
    task = await soon(it)
    worker = it.worker(task)
    await worker.begin(5)
    await worker.write("half")
    await eventually(lambda: it.gateway.readers.of(task)[0].cursor.offset)
    await worker.begin(6)
    await worker.write("anew")
    with pytest.raises(openai.APIError) as broken:
        [chunk async for chunk in stream]
    assert broken.value.code == "restarted"

    stream = await sdk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "ho"}], stream=True)
    failed = Outcome(kind=OUTCOME_KIND_FAILED, error_code="engine_failed", error_message="three attempts failed")
    await it.answer(await soon(it, 2), "half", outcome=failed)
    with pytest.raises(openai.APIError) as broken:
        [chunk async for chunk in stream]
    assert (broken.value.code, broken.value.message) == ("engine_failed", "three attempts failed")


async def test_a_plain_answer_that_failed_is_an_error(it: Lab, sdk: openai.AsyncOpenAI) -> None:
    """Without a stream the end that is no answer becomes its row of the table."""
    asking = asyncio.create_task(
        sdk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
    )
    failed = Outcome(kind=OUTCOME_KIND_FAILED, error_code="engine_failed", error_message="three attempts failed")
    await it.answer(await soon(it), outcome=failed)
    with pytest.raises(openai.InternalServerError) as error:
        await asking
    assert (error.value.status_code, error.value.code) == (502, "engine_failed")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("n", 2), ("tools", [{"type": "function"}]), ("logprobs", True), ("frequency_penalty", 0.5), ("frobnicate", 1)],
)
async def test_what_the_engine_cannot_honour_is_refused_by_name(it: Lab, parameter: str, value: Any) -> None:
    """Unknown parameters, and values that ask for something else than what happens anyway."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], parameter: value}
    response, answer = await call(it, "POST", "/v1/chat/completions", body)
    assert (response.status, answer["error"]["param"]) == (400, parameter)


async def test_an_openai_client_that_leaves_cancels_its_task(it: Lab, sdk: openai.AsyncOpenAI) -> None:
    """The default policy of completions is `cancel`: plain or streamed, a client that is gone wants no tokens."""
    asking = asyncio.create_task(
        sdk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
    )
    task = await soon(it)
    asking.cancel()
    await eventually(lambda: it.signals.cancels == [("tiny", task)])
    stream = await sdk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "ho"}], stream=True)
    second = await soon(it, 2)
    await stream.close()
    await eventually(lambda: ("tiny", second) in it.signals.cancels)


async def test_models_are_listed_for_openai_clients(sdk: openai.AsyncOpenAI) -> None:
    """`/v1/models` and one model, as the client library reads them."""
    assert [model.id async for model in sdk.models.list()] == ["sim", "tiny"]
    assert (await sdk.models.retrieve("tiny")).id == "tiny"


# -- leaving --------------------------------------------------------------------------------------------------------------


async def test_a_leaving_gateway_ends_no_stream_silently(it: Lab, sdk: openai.AsyncOpenAI) -> None:
    """Task streams end with `going_away` at once, completions, which cannot go on elsewhere, with a typed error at last."""
    _, body = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi", "on_disconnect": "cancel"})
    messages = [{"role": "user", "content": "hi"}]
    plain = asyncio.create_task(sdk.chat.completions.create(model="tiny", messages=messages))  # type: ignore[arg-type]
    await soon(it, 2)
    stream = await sdk.chat.completions.create(model="tiny", messages=messages, stream=True)  # type: ignore[arg-type]
    async with it.client.get(f"{it.http}/v1/tasks/{body['task']}/stream", headers=it.auth()) as response:
        it.gateway.leave(1.0)
        assert "event: going_away" in await response.text()
    assert not plain.done()
    it.gateway.mailboxes.leave(all_of_them=True)
    with pytest.raises(openai.InternalServerError) as refused:
        await plain
    assert (refused.value.status_code, refused.value.code) == (503, "unavailable")
    with pytest.raises(openai.APIError) as broken:
        [chunk async for chunk in stream]
    assert broken.value.code == "unavailable"
    assert not it.signals.cancels


# -- the document ---------------------------------------------------------------------------------------------------------


async def test_the_document_names_every_route_and_no_other(it: Lab) -> None:
    """OpenAPI 3.1: what is served is described, what is described is served, every reference has its schema."""
    _, document = await call(it, "GET", "/openapi.json")
    assert document["openapi"].startswith("3.1")
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    served = {
        (route.resource.canonical, route.method)
        for route in it.gateway.app.router.routes()
        if route.resource and route.method != "HEAD" and route.resource.canonical.startswith("/v1")
    }
    assert described == served
    references = set(re.findall(r"#/components/schemas/(\w+)", msgspec.json.encode(document).decode()))
    assert references <= set(document["components"]["schemas"])


async def test_the_document_is_true_of_an_answer(it: Lab) -> None:
    """The fields of a real answer are those of its schema."""
    _, document = await call(it, "GET", "/openapi.json")
    _, body = await call(it, "POST", "/v1/tasks", {"model": "tiny", "input": "hi"})
    assert set(body) == set(document["components"]["schemas"]["TaskState"]["properties"])
