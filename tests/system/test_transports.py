"""One task, any door of any gateway: submitted here, read to the end there."""

import asyncio
import time

import grpc.aio
import httpx
import msgspec
import openai
import pytest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from millrace.inference.v1 import inference_pb2 as pb
from millrace.inference.v1.inference_pb2_grpc import InferenceStub
from services.cli.stack.handle import Stack
from services.gateway.grpc.servicer import SERVICE
from tests.support.doors import Doors, said

TOKENS = 40
PROMPT = f"Once upon a time [[sim tokens={TOKENS} rate=100]]"


@pytest.fixture
def pair(stack: Stack) -> tuple[Doors, Doors]:
    """The same key at two gateways."""
    one, two, *_ = [Doors(gateway, stack.key) for gateway in stack.gateways]
    return one, two


async def read_ws(doors: Doors, task: str, gen: str = "", offset: int = 0) -> str:
    """The text from a cursor to the end."""
    text = ""
    async with doors.socket() as socket:
        resume = {"t": "resume", "task": task, "gen": gen, "offset": offset}
        await socket.send(msgspec.json.encode(resume).decode())
        while (message := await said(socket, "delta", "done"))["t"] == "delta":
            text += message["text"]
            assert message["offset"] == offset + len(text.encode())
    assert message["outcome"] == "completed"
    return text


async def read_sse(doors: Doors, task: str, last: str = "") -> str:
    """The same over server-sent events."""
    text = ""
    headers = doors.auth | ({"Last-Event-ID": last} if last else {})
    async with (
        httpx.AsyncClient(base_url=doors.http, timeout=30) as client,
        client.stream("GET", f"/v1/tasks/{task}/stream", headers=headers) as response,
    ):
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                message = msgspec.json.decode(line.removeprefix("data: "))
                text += message.get("text", "")
    assert message["t"] == "done"
    return text


async def read_grpc(doors: Doors, task: str, gen: str = "", offset: int = 0) -> str:
    """The same over gRPC."""
    text = ""
    async with grpc.aio.insecure_channel(doors.gateway.grpc) as channel:
        request = pb.WatchRequest(task=task, gen=gen, offset=offset)
        async for event in InferenceStub(channel).Watch(request, metadata=doors.metadata):
            text += event.delta.text
    assert event.HasField("done")
    return text


@pytest.mark.parametrize("door", ["ws", "tasks", "grpc"])
async def test_a_task_of_one_transport_is_read_on_all(pair: tuple[Doors, Doors], door: str) -> None:
    """Submitted on one transport, the same bytes to the end on all three, live and afterwards, at both gateways."""
    here, there = pair
    told = await here.ask(door, input=f"{PROMPT} {door}")
    assert not told.code
    live = await asyncio.gather(read_ws(there, told.task), read_sse(here, told.task), read_grpc(there, told.task))
    assert len(set(live)) == 1
    assert live[0].count(" ") == TOKENS
    late = await asyncio.gather(read_ws(here, told.task), read_sse(there, told.task), read_grpc(here, told.task))
    assert set(late) == set(live)


async def test_a_reader_changes_transport_and_gateway_in_the_middle(pair: tuple[Doors, Doors]) -> None:
    """A cursor from one transport is good on every other: nothing lost, nothing twice."""
    here, there = pair
    async with here.socket() as socket:
        await said(socket, "hello")
        submit = {"t": "submit", "model": "sim", "input": f"{PROMPT} moving"}
        await socket.send(msgspec.json.encode(submit).decode())
        task = (await said(socket, "ack"))["task"]
        begun = await said(socket, "delta")
    gen, offset = begun["gen"], begun["offset"]
    rest = await asyncio.gather(
        read_ws(there, task, gen, offset), read_sse(there, task, f"{gen}:{offset}"), read_grpc(there, task, gen, offset)
    )
    assert len(set(rest)) == 1
    assert begun["text"] + rest[0] == await read_ws(here, task)


async def test_the_same_key_is_the_same_task_at_every_gateway(pair: tuple[Doors, Doors]) -> None:
    """Also where the acknowledgment was lost: retried through another door, nothing runs twice."""
    here, there = pair
    key = f"same-{time.time()}"
    tasks = [
        (await doors.ask(door, key=key, input=PROMPT)).task
        for doors, door in ((here, "ws"), (there, "tasks"), (there, "grpc"))
    ]
    assert len(set(tasks)) == 1


async def test_an_unmodified_openai_client_works(pair: tuple[Doors, Doors]) -> None:
    """Plain and streamed on the tiny model in Triton, errors included; the task can be read elsewhere too."""
    here, there = pair
    messages = [{"role": "user", "content": "Once upon a time"}]
    async with openai.AsyncOpenAI(api_key=here.key, base_url=f"{here.http}/v1", max_retries=0) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="tiny",
            messages=messages,  # type: ignore[arg-type]
            max_tokens=16,
            seed=7,
        )
        plain = raw.parse()
        assert plain.usage is not None
        assert 0 < plain.usage.completion_tokens <= 16
        assert await read_sse(there, raw.headers["x-millrace-task"]) == plain.choices[0].message.content
        stream = await client.chat.completions.create(
            model="tiny",
            messages=messages,  # type: ignore[arg-type]
            max_tokens=16,
            stream=True,
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="tiny", messages=messages, n=2)  # type: ignore[arg-type]
        assert refused.value.param == "n"
        assert {model.id async for model in client.models.list()} >= {"tiny", "sim"}


async def test_any_grpc_client_finds_the_service_by_reflection(pair: tuple[Doors, Doors]) -> None:
    """Server reflection lists the service and describes it."""
    async with grpc.aio.insecure_channel(pair[0].gateway.grpc) as channel:
        stub = ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([ServerReflectionRequest(list_services="")]))
        listed = [service.name async for answer in call for service in answer.list_services_response.service]
        assert SERVICE in listed
        call = stub.ServerReflectionInfo(iter([ServerReflectionRequest(file_containing_symbol=SERVICE)]))
        described = [answer async for answer in call]
        assert described[0].file_descriptor_response.file_descriptor_proto
