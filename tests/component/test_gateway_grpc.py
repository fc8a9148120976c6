"""The gRPC door."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from millrace.inference.v1 import inference_pb2 as pb
from millrace.router.v1.router_pb2 import AcceptReply, AcceptRequest, Rejected
from millrace.task.v1.task_pb2 import Message, OnDisconnect, PriorityClass
from services.gateway.core.submission import MAX_MESSAGES, MAX_TASK_BYTES
from services.gateway.grpc.servicer import SERVICE
from tests.support.gateway_lab import KEY, OTHER_KEY, Lab, lab
from tests.support.waiting import eventually

AUTH = (("authorization", f"Bearer {KEY}"),)


@pytest.fixture
async def it() -> AsyncIterator[Lab]:
    async with lab() as running:
        yield running


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The typed details of an error by their kind."""
    raw = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    found: dict[str, Any] = {}
    for packed in Status.FromString(raw).details:
        for kind in (ErrorInfo, RetryInfo, BadRequest):
            message = kind()
            if packed.Unpack(message):
                found[kind.__name__] = message
    return found


async def test_a_task_is_submitted_looked_at_and_watched(it: Lab) -> None:
    """Submit, Get, Watch from an offset to the end."""
    request = pb.SubmitRequest(key="k", model="tiny", messages=[Message(role="user", content="hi")], seed=0)
    accepted = await it.inference.Submit(request, metadata=AUTH)
    assert (accepted.key, accepted.state) == ("k", "queued")
    record = it.backend.tasks[accepted.task]
    assert record.sampling.HasField("seed")
    assert (record.priority_class, record.on_disconnect.keep) == (PriorityClass.PRIORITY_CLASS_STANDARD, True)
    worker = it.worker(accepted.task)
    await worker.begin(5)
    await worker.write("one ")
    view = await it.inference.Get(pb.GetRequest(task=accepted.task), metadata=AUTH)
    assert (view.state, view.text, view.offset) == ("running", "one ", 4)
    call = aiter(it.inference.Watch(pb.WatchRequest(task=accepted.task, gen=view.gen, offset=2), metadata=AUTH))
    first = await anext(call)
    assert (first.delta.text, first.delta.offset) == ("e ", 4)
    await worker.write("two")
    await worker.end()
    rest = [event async for event in call]
    assert [event.WhichOneof("event") for event in rest] == ["delta", "done"]
    assert rest[1].done.outcome.finish_reason == "stop"


async def test_generate_is_submit_and_watch(it: Lab) -> None:
    """First event accepted, then text, then the end; the call's deadline is the task's."""
    call = aiter(it.inference.Generate(pb.SubmitRequest(model="tiny", input="hi"), metadata=AUTH, timeout=50))
    accepted = (await anext(call)).accepted
    record = it.backend.tasks[accepted.task]
    assert 45 < record.deadline.seconds - record.submitted_at.seconds <= 51
    await it.answer(accepted.task, "one ", "two")
    rest = [event async for event in call]
    assert "".join(e.delta.text for e in rest) == "one two"
    assert rest[-1].WhichOneof("event") == "done"


async def test_a_retried_generate_finds_its_task(it: Lab) -> None:
    """Each try of a call has another time left; the key finds the first try's task all the same, deadline and all."""
    request = pb.SubmitRequest(key="k", model="tiny", input="hi")
    tasks = [
        (await aiter(it.inference.Generate(request, metadata=AUTH, timeout=timeout)).__anext__()).accepted.task
        for timeout in (60, 60, 30, None)
    ]
    assert len(set(tasks)) == 1
    assert list(it.backend.tasks) == tasks[:1]
    assert (await it.inference.Submit(request, metadata=AUTH)).task == tasks[0]
    request.deadline.FromSeconds(30)  # a deadline that the client gives is part of what it asks
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await it.inference.Submit(request, metadata=AUTH)
    assert details(error.value)["ErrorInfo"].reason == "idempotency_conflict"


async def test_a_task_of_very_many_messages_fits_a_record_of_kafka_or_is_refused(it: Lab) -> None:
    """What stands around their text counts too."""
    message = Message(role="assistant", content="x" * (MAX_TASK_BYTES // MAX_MESSAGES))
    request = pb.SubmitRequest(key="k", model="tiny", messages=[message] * MAX_MESSAGES)
    accepted = await it.inference.Submit(request, metadata=AUTH)
    assert (
        it.backend.tasks[accepted.task].ByteSize() < 1024 * 1024 - 48 * 1024
    )  # beside metadata, headers, a batch's own bytes
    request.messages.append(message)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await it.inference.Submit(request, metadata=AUTH)
    found = details(error.value)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert found["ErrorInfo"].reason == "invalid_request"
    assert found["BadRequest"].field_violations[0].field == "messages"
    assert len(it.backend.tasks) == 1


async def test_a_cancelled_generate_obeys_its_policy(it: Lab) -> None:
    """`cancel` cancels the task, the default keeps it."""
    calls = []
    for policy in (OnDisconnect(cancel=True), None):
        request = pb.SubmitRequest(model="tiny", input="hi", on_disconnect=policy)
        calls.append(it.inference.Generate(request, metadata=AUTH))
        await calls[-1].read()
    cancelled, _ = it.backend.tasks
    for call in calls:
        call.cancel()
    await eventually(lambda: it.signals.cancels == [("tiny", cancelled)])
    await eventually(lambda: not it.gateway.readers._feeds.by_task)
    assert len(it.signals.cancels) == 1


async def test_cancel_ends_a_task(it: Lab) -> None:
    """Cancel answers with the state; the wish is written."""
    accepted = await it.inference.Submit(pb.SubmitRequest(model="tiny", input="hi"), metadata=AUTH)
    reply = await it.inference.Cancel(pb.CancelRequest(task=accepted.task), metadata=AUTH)
    assert reply.state == "cancelling"
    assert await it.log.cancel_wished(accepted.task)


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        (pb.SubmitRequest(input="x"), grpc.StatusCode.INVALID_ARGUMENT, "invalid_request", "model"),
        (pb.SubmitRequest(model="tiny"), grpc.StatusCode.INVALID_ARGUMENT, "invalid_request", "input"),
        (pb.SubmitRequest(model="no", input="x"), grpc.StatusCode.NOT_FOUND, "unknown_model", "model"),
        (
            pb.SubmitRequest(model="tiny", input="x", temperature=3),
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid_request",
            "temperature",
        ),
        (
            pb.SubmitRequest(model="tiny", input="x", priority_class=PriorityClass.PRIORITY_CLASS_BATCH),
            grpc.StatusCode.PERMISSION_DENIED,
            "forbidden",
            "class",
        ),
        (
            pb.SubmitRequest(model="tiny", input="x", deadline=Duration(seconds=-1)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid_request",
            "deadline_s",
        ),
        (
            pb.SubmitRequest(model="tiny", input="x" * 930_000),
            grpc.StatusCode.INVALID_ARGUMENT,
            "too_large",
            "input",
        ),
    ],
)
async def test_a_refusal_has_typed_details(
    it: Lab, request_: pb.SubmitRequest, code: grpc.StatusCode, reason: str, field: str
) -> None:
    """Status by the table, ErrorInfo with our code, BadRequest with the field; the same for a stream."""
    for call in (it.inference.Submit(request_, metadata=AUTH), it.inference.Generate(request_, metadata=AUTH).read()):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        found = details(error.value)
        assert error.value.code() is code
        assert (found["ErrorInfo"].reason, found["ErrorInfo"].domain) == (reason, "millrace.dev")
        assert found["BadRequest"].field_violations[0].field == field


async def test_a_refusal_by_overload_says_when(it: Lab) -> None:
    """`shed` is UNAVAILABLE with RetryInfo and the pushback that gRPC clients obey."""

    async def shedding(_: AcceptRequest) -> AcceptReply:
        reply = AcceptReply(rejected=Rejected(code="shed", message="too much"))
        reply.rejected.retry_after.FromMilliseconds(1500)
        return reply

    it.backend.accepting = shedding
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await it.inference.Submit(pb.SubmitRequest(model="tiny", input="hi"), metadata=AUTH)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert details(error.value)["RetryInfo"].retry_delay.ToMilliseconds() >= 1500
    assert int(dict(error.value.trailing_metadata() or ())["grpc-retry-pushback-ms"]) >= 1500


async def test_a_foreign_task_and_no_key_are_refused(it: Lab) -> None:
    """Another tenant's task is NOT_FOUND, no key UNAUTHENTICATED."""
    accepted = await it.inference.Submit(pb.SubmitRequest(model="tiny", input="hi"), metadata=AUTH)
    foreign = (("authorization", f"Bearer {OTHER_KEY}"),)
    for call in (
        it.inference.Get(pb.GetRequest(task=accepted.task), metadata=foreign),
        it.inference.Cancel(pb.CancelRequest(task=accepted.task), metadata=foreign),
        it.inference.Watch(pb.WatchRequest(task=accepted.task), metadata=foreign).read(),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert details(error.value)["ErrorInfo"].reason == "unknown_task"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await it.inference.Get(pb.GetRequest(task=accepted.task))
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_is_served(it: Lab) -> None:
    """The standard health service knows the service by name."""
    async with grpc.aio.insecure_channel(it.grpc) as channel:
        health = await HealthStub(channel).Check(HealthCheckRequest(service=SERVICE))
    assert health.status == HealthCheckResponse.SERVING
