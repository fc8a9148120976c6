"""The errors table on all transports: the same name everywhere, each transport's own row."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import msgspec
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from millrace.inference.v1.inference_pb2 import GetRequest, SubmitRequest
from millrace.router.v1.router_pb2 import AcceptReply, AcceptRequest, Rejected
from millrace.task.v1.task_pb2 import OUTCOME_KIND_FAILED, Outcome
from services.chassis.errors import ERRORS, ErrorCode
from tests.support.gateway_lab import KEY, Lab, lab
from tests.support.waiting import eventually

AUTH = (("authorization", f"Bearer {KEY}"),)
REFUSALS = sorted(set(ErrorCode) - {ErrorCode.RESTARTED, ErrorCode.UNAUTHENTICATED})
ENDS = (ErrorCode.EXPIRED, ErrorCode.ENGINE_FAILED, ErrorCode.CANCELLED, ErrorCode.INTERNAL)


@pytest.fixture
async def it() -> AsyncIterator[Lab]:
    async with lab() as running:
        yield running


def refuse(it: Lab, code: ErrorCode) -> None:
    """Let the router say so to everything."""

    async def refusing(_: AcceptRequest) -> AcceptReply:
        return AcceptReply(rejected=Rejected(code=code.value, message="because"))

    it.backend.accepting = refusing


async def over_grpc(call: Any) -> tuple[grpc.StatusCode, str]:
    """Status and our code of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    packed = Status.FromString(dict(error.value.trailing_metadata() or ())["grpc-status-details-bin"]).details[0]
    info = ErrorInfo()
    assert packed.Unpack(info)
    return error.value.code(), info.reason


async def over_http(it: Lab, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and error of a request that fails."""
    async with it.client.post(it.http + path, data=msgspec.json.encode(body), headers=it.auth()) as response:
        return response.status, (await response.json())["error"]


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_refusal_has_the_same_name_on_every_transport(it: Lab, code: ErrorCode) -> None:
    """WebSocket, tasks, completions and gRPC tell the code, and status, and whether to try again, as the table has them."""
    refuse(it, code)
    row = ERRORS[code]
    socket = await it.socket()
    await socket.send(t="submit", model="tiny", input="x", key="k")
    error = await socket.next()
    assert (error["t"], error["code"], error["retryable"]) == ("error", code, row.retryable)
    for path, body in (
        ("/v1/tasks", {"model": "tiny", "input": "x"}),
        ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": True}),
    ):
        status, answer = await over_http(it, path, body)
        assert (status, answer["code"], answer["retryable"]) == (row.http, code, row.retryable)
    request = SubmitRequest(model="tiny", input="x")
    assert await over_grpc(it.inference.Submit(request, metadata=AUTH)) == (row.grpc, code)
    assert await over_grpc(it.inference.Generate(request, metadata=AUTH).read()) == (row.grpc, code)


@pytest.mark.parametrize("code", ENDS)
async def test_an_end_without_an_answer_has_the_same_name_on_every_transport(it: Lab, code: ErrorCode) -> None:
    """`done` carries the code; a completion, which cannot, ends as an error of its row, in a stream as a typed chunk."""
    row = ERRORS[code]
    outcome = Outcome(kind=OUTCOME_KIND_FAILED, error_code=code.value, error_message="because")
    socket = await it.socket()
    task = (await socket.submit())["task"]
    await it.answer(task, "half", outcome=outcome)
    done = await socket.until("done")
    assert done["error"] == {"code": code, "message": "because", "retryable": row.retryable}
    async with it.client.get(f"{it.http}/v1/tasks/{task}", headers=it.auth()) as response:
        assert (await response.json())["error"]["code"] == code
    view = await it.inference.Get(GetRequest(task=task), metadata=AUTH)
    assert (view.state, view.outcome.error_code) == ("failed", code)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
    asking = asyncio.create_task(over_http(it, "/v1/chat/completions", body))
    await eventually(lambda: len(it.backend.tasks) == 2)
    await it.answer(list(it.backend.tasks)[1], "half", outcome=outcome)
    status, answer = await asking
    assert (status, answer["code"]) == (row.http, code)
    data = msgspec.json.encode(body | {"stream": True})
    async with it.client.post(f"{it.http}/v1/chat/completions", data=data, headers=it.auth()) as response:
        await it.answer(list(it.backend.tasks)[2], "half", outcome=outcome)
        last = (await response.read()).strip().rpartition(b"data: ")[2]
    assert msgspec.json.decode(last)["error"]["code"] == code


async def test_gone_and_unknown_differ(it: Lab) -> None:
    """A task whose answer is no longer kept is `gone`; one that never was is unknown."""
    socket = await it.socket()
    task = (await socket.submit())["task"]
    await it.control.ended(task)
    for name, status, code in ((task, 410, "gone"), ("a" * 26, 404, "unknown_task")):
        for path in (f"/v1/tasks/{name}", f"/v1/tasks/{name}/stream"):
            async with it.client.get(it.http + path, headers=it.auth()) as response:
                assert (response.status, (await response.json())["error"]["code"]) == (status, code)
        assert await over_grpc(it.inference.Get(GetRequest(task=name), metadata=AUTH)) == (
            grpc.StatusCode.NOT_FOUND,
            code,
        )
