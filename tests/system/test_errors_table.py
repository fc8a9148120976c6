"""Each row of the errors table, on each transport of the real stack."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import httpx
import msgspec
import pytest
import redis
import yaml

from millrace.inference.v1.inference_pb2 import GetRequest, WatchRequest
from millrace.inference.v1.inference_pb2_grpc import InferenceStub
from services.chassis.errors import ERRORS, ErrorCode
from services.cli.stack.handle import Stack
from services.cli.stack.home import write_private
from services.tasklog.core.keys import control_key
from tests.support.doors import DOORS, Doors, Told, said, told_by
from tests.support.waiting import eventually, wait_until

NARROW, STRICT, FORGETFUL = ("mr_" + name.ljust(32, "7") for name in ("narrow", "strict", "forgetful"))
LONG = "[[sim tokens=10000 rate=5]]"


def manifest(kind: str, name: str, **body: Any) -> dict[str, Any]:
    return {"apiVersion": "millrace.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, **body}


def tenant(name: str, key: str, **spec: Any) -> list[dict[str, Any]]:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"key": key}}
    keys = [{"name": name, "secretRef": {"name": name}}]
    return [secret, manifest("Tenant", name, spec={"keys": keys} | spec)]


@pytest.fixture(scope="module")
def crowded(stack: Stack) -> Stack:
    """The stack with three tenants more: one model only, one request a minute, answers kept for a second."""
    once = {"rate": 1, "periodSeconds": 60, "burst": 1}
    documents = [
        *tenant("narrow", NARROW, models=["tiny"]),
        *tenant("strict", STRICT, limitPolicy="strict"),
        manifest("LimitPolicy", "strict", spec={"perKey": {"requests": once}}),
        *tenant("forgetful", FORGETFUL, retentionSeconds=1),
    ]
    write_private(stack.home.manifests / "tenants.yaml", yaml.safe_dump_all(documents).encode())
    for gateway in stack.gateways:
        url, headers = f"http://{gateway.http}/v1/models", {"Authorization": f"Bearer {FORGETFUL}"}
        wait_until(lambda url=url, headers=headers: httpx.get(url, headers=headers).is_success)
    return stack


@pytest.fixture
def doors(crowded: Stack) -> Doors:
    return Doors(crowded.gateways[0], crowded.key)


def by_the_table(door: str, told: Told, code: ErrorCode) -> None:
    """The code, and the status that this transport has for it."""
    assert told.code == code, (door, told)
    if door.startswith("grpc") and told.status is not None:
        assert told.status is ERRORS[code].grpc
    elif door != "ws" and not (door == "chat stream" and told.status == 200):
        assert told.status in {ERRORS[code].http, None}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("key", "fields", "code"),
    [
        (NARROW, {"model": "sim"}, ErrorCode.FORBIDDEN),
        (NARROW, {"model": "tiny", "class": "critical"}, ErrorCode.FORBIDDEN),
        ("", {"temperature": 5}, ErrorCode.INVALID_REQUEST),
        ("", {"model": "none"}, ErrorCode.UNKNOWN_MODEL),
        ("", {"input": f"[[sim prefill=5]] {time.time()}", "deadline_s": 0.3}, ErrorCode.EXPIRED),
        ("", {"input": "[[sim fault=fatal@0]]"}, ErrorCode.ENGINE_FAILED),
    ],
    ids=lambda value: str(value) if isinstance(value, ErrorCode) else None,
)
async def test_a_refusal_or_an_end_has_its_row(
    crowded: Stack, door: str, key: str, fields: dict[str, Any], code: ErrorCode
) -> None:
    """`forbidden`, `invalid_request`, `unknown_model` before, `expired`, `engine_failed` after the acknowledgment."""
    doors = Doors(crowded.gateways[0], key or crowded.key)
    told = await doors.ask(door, **fields)
    if not told.code:  # accepted: the end says it
        told = Told(await end_of(doors, told.task))
    by_the_table(door, told, code)


async def end_of(doors: Doors, task: str) -> str:
    """The error code of a task's end, on a WebSocket."""
    async with doors.socket() as socket:
        await socket.send(msgspec.json.encode({"t": "resume", "task": task}).decode())
        error = (await said(socket, "done"))["error"]
    return str(error["code"]) if error else ""


@pytest.mark.parametrize("door", DOORS)
async def test_unauthenticated(crowded: Stack, door: str) -> None:
    """401, UNAUTHENTICATED, close 4401."""
    told = await Doors(crowded.gateways[0], "mr_wrong").ask(door)
    if door == "ws":
        assert told.status == 4401
    else:
        by_the_table(door, told, ErrorCode.UNAUTHENTICATED)


@pytest.mark.parametrize("door", DOORS)
async def test_idempotency_conflict(doors: Doors, door: str) -> None:
    """The same key with another body, whatever door the first came through."""
    key = f"conflict-{door}-{time.time()}"
    assert not (await doors.ask("tasks", key=key, input="one")).code
    by_the_table(door, await doors.ask(door, key=key, input="two"), ErrorCode.IDEMPOTENCY_CONFLICT)


async def test_too_large(doors: Doors) -> None:
    """413 for a body, INVALID_ARGUMENT for a call, close 1009 for a frame."""
    large = "x" * 950_000
    for door in DOORS:
        told = await doors.ask(door, input=large)
        if door == "ws":
            assert told.status == 1009
        else:
            by_the_table(door, told, ErrorCode.TOO_LARGE)


@pytest.mark.parametrize("door", DOORS)
async def test_limited(crowded: Stack, door: str) -> None:
    """One request a minute: the second is limited and told when to come back, the same on each transport."""
    doors = Doors(crowded.gateways[0], STRICT)
    await doors.ask("tasks")
    told = await doors.ask(door)
    by_the_table(door, told, ErrorCode.LIMITED)
    assert door.startswith("grpc") or 0 < (told.retry_after_s or 0) <= 66


async def test_unknown_task_and_gone(crowded: Stack) -> None:
    """A task that never was is unknown; one whose retention is over is gone."""
    doors = Doors(crowded.gateways[0], FORGETFUL)
    told = await doors.ask("tasks", input="[[sim tokens=2]]")
    for task, code in (("a" * 26, ErrorCode.UNKNOWN_TASK), (told.task, ErrorCode.GONE)):
        await until_gone(doors, task)
        refusals = [told for told, _ in await refused_reads(doors, task)]
        assert refusals == [Told(code, ERRORS[code].http)] * 2 + [Told(code, grpc.StatusCode.NOT_FOUND)] * 2
        async with doors.socket() as socket:
            await socket.send(msgspec.json.encode({"t": "resume", "task": task}).decode())
            assert (await said(socket, "gone"))["code"] == ("expired" if code is ErrorCode.GONE else "unknown")


async def refused_reads(doors: Doors, task: str) -> list[tuple[Told, str]]:
    """What is told, with its message, to who reads a task: its state and its stream over HTTP, then the same over gRPC."""
    refusals = []
    async with httpx.AsyncClient(base_url=f"{doors.http}/v1/tasks/", headers=doors.auth) as client:
        for path in (task, f"{task}/stream"):
            response = await client.get(path)
            error = response.json()["error"]
            refusals.append((Told(error["code"], response.status_code), error["message"]))
    async with grpc.aio.insecure_channel(doors.gateway.grpc) as channel:
        stub = InferenceStub(channel)
        for call in (
            stub.Get(GetRequest(task=task), metadata=doors.metadata),
            stub.Watch(WatchRequest(task=task), metadata=doors.metadata).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            refusals.append((told_by(refused.value), refused.value.details() or ""))
    return refusals


async def until_gone(doors: Doors, task: str) -> None:
    """Wait until the task has ended and its answer is not kept any more."""
    async with httpx.AsyncClient(base_url=doors.http, headers=doors.auth) as client:

        async def gone() -> bool:
            return (await client.get(f"/v1/tasks/{task}")).status_code != 200

        await eventually(gone, within_s=30, every_s=0.1)


@pytest.mark.parametrize("door", DOORS)
async def test_cancelled(doors: Doors, door: str) -> None:
    """499, CANCELLED, `done`: a task that somebody cancels ends so for who waits at the door, and for every other reader."""
    fields = {"input": f"{LONG} {door}", "key": f"{door}-{time.time()}"}
    stays = {"on_disconnect": "keep"} if door.startswith("chat") else {}  # the others' default: one body for one key
    asking = asyncio.create_task(doors.ask(door, **fields, **stays))
    task = (await doors.ask("tasks", **fields)).task
    reading = asyncio.create_task(end_of(doors, task))
    async with httpx.AsyncClient(base_url=f"{doors.http}/v1/tasks/", headers=doors.auth) as client:

        async def runs() -> bool:
            return (await client.get(task)).json()["state"] == "running"

        await eventually(runs, within_s=30, every_s=0.1)
        assert (await client.delete(task)).status_code == 202
        told, end = await asking, await reading
        assert told.task == task
        by_the_table(door, told if told.code else Told(end), ErrorCode.CANCELLED)
        view = (await client.get(task)).json()
        assert (end, view["state"], view["error"]["code"]) == (ErrorCode.CANCELLED, "cancelled", ErrorCode.CANCELLED)


@pytest.fixture
async def damaged(crowded: Stack, doors: Doors) -> AsyncIterator[tuple[str, str]]:
    """Key and id of a task that ended, and of whose claim Redis has something that no service ever wrote."""
    key = f"damaged-{time.time()}"
    task = (await doors.ask("tasks", key=key, input="[[sim tokens=2]]")).task
    assert not await end_of(doors, task)
    with redis.Redis(port=crowded.status.named("redis")[0].ports["port"]) as client:
        client.hset(control_key(task), "claim", "no JSON")
        yield key, task
        client.delete(control_key(task))


async def test_internal(crowded: Stack, doors: Doors, damaged: tuple[str, str]) -> None:
    """500, INTERNAL, error: what no code planned for. Who reads gets an id to quote, and the gateway's log has it too."""
    key, task = damaged
    for door in DOORS:
        by_the_table(door, await doors.ask(door, key=key, input="[[sim tokens=2]]"), ErrorCode.INTERNAL)
    reads = await refused_reads(doors, task)
    code = ErrorCode.INTERNAL
    assert [told for told, _ in reads] == [Told(code, 500)] * 2 + [Told(code, grpc.StatusCode.INTERNAL)] * 2
    messages = [message for _, message in reads]
    async with doors.socket() as socket:
        await socket.send(msgspec.json.encode({"t": "resume", "task": task}).decode())
        error = await said(socket, "error")
        assert error["code"] == ErrorCode.INTERNAL
        messages.append(error["message"])
    log = crowded.home.log("gateway-1").read_text()
    for message in messages:
        assert f"incident {message.rpartition(' ')[2]}\n" in log, message


@pytest.fixture
async def without(crowded: Stack) -> AsyncIterator[Any]:
    """Stop a component where it stands; it goes on after the test."""
    stopped: list[str] = []

    def stop(name: str) -> None:
        stopped.append(name)
        crowded.pause(name)

    yield stop
    for name in stopped:
        crowded.resume(name)
    crowded.wait_ready()


async def test_unavailable(doors: Doors, without: Any) -> None:
    """A dependency that does not answer: `unavailable` within the deadline, retryable, and the key finds out later."""
    without("router")
    for door in DOORS:
        began = time.monotonic()
        told = await doors.ask(door, deadline_s=0.5)
        assert time.monotonic() - began < 3
        by_the_table(door, told, ErrorCode.UNAVAILABLE)


async def test_shed(doors: Doors, without: Any) -> None:
    """More waits than the pool can do in time: work below critical is shed with a time to come back, critical work is not."""
    without("worker-1")
    without("worker-2")
    work = {"model": "tiny", "max_tokens": 1000, "deadline_s": 120}
    waiting: list[str] = []
    async with asyncio.timeout(40):  # until the dispatcher gave the workers up and the queue is long enough
        while not waiting or all(waiting[-20:]):
            told = await asyncio.gather(*[doors.ask("tasks", input=f"task {n}", **work) for n in range(20)])
            waiting += [one.task for one in told]
    for door in DOORS:
        told_here = await doors.ask(door, **work)
        by_the_table(door, told_here, ErrorCode.SHED)
        assert door.startswith("grpc") or (told_here.retry_after_s or 0) > 0
    critical = await doors.ask("tasks", **work, **{"class": "critical"})
    assert not critical.code
    async with httpx.AsyncClient(base_url=doors.http, headers=doors.auth) as client:
        await asyncio.gather(*[client.delete(f"/v1/tasks/{task}") for task in (*waiting, critical.task) if task])
