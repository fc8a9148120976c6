"""The doors of a running gateway, opened from outside: the error that each of them tells, or what it gives."""

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx
import msgspec
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from millrace.inference.v1 import inference_pb2 as pb
from millrace.inference.v1.inference_pb2_grpc import InferenceStub
from millrace.task.v1.task_pb2 import PriorityClass
from services.cli.stack.handle import Gateway

PATIENCE_S = 30.0
DOORS = ("ws", "tasks", "chat", "chat stream", "grpc", "grpc generate")


@dataclass(frozen=True, slots=True)
class Told:
    """What a door said: the code, `""` for acceptance, and its own status (close code, HTTP status, gRPC code)."""

    code: str
    status: int | grpc.StatusCode | None = None
    retry_after_s: float | None = None
    task: str = ""


@dataclass(frozen=True, slots=True)
class Doors:
    """One gateway, one key."""

    gateway: Gateway
    key: str

    @property
    def http(self) -> str:
        """Base URL."""
        return f"http://{self.gateway.http}"

    @property
    def auth(self) -> dict[str, str]:
        """The header that authenticates."""
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The same for gRPC."""
        return (("authorization", f"Bearer {self.key}"),)

    def socket(self) -> connect:
        """A WebSocket; `hello` comes first."""
        return connect(
            self.http.replace("http", "ws") + "/v1/ws",
            additional_headers=self.auth,
            subprotocols=["millrace.v1"],  # type: ignore[list-item]
            max_size=None,
        )

    async def ask(self, door: str, **fields: Any) -> Told:
        """Submit at a door; what it says first, for completions how it ends."""
        fields = {"model": "sim", "input": "hi"} | fields
        async with asyncio.timeout(PATIENCE_S):
            match door:
                case "ws":
                    return await self._ask_ws(fields)
                case "tasks":
                    return await self._ask_http("/v1/tasks", fields)
                case "chat" | "chat stream":
                    turns = [{"role": "user", "content": fields.pop("input")}]
                    key = fields.pop("key", "")
                    body = fields | {"messages": turns, "stream": door == "chat stream"}
                    return await self._ask_http("/v1/chat/completions", body, key)
                case _:
                    return await self._ask_grpc(door, fields)

    async def _ask_ws(self, fields: dict[str, Any]) -> Told:
        try:
            async with self.socket() as socket:
                await said(socket, "hello")
                await socket.send(msgspec.json.encode({"t": "submit"} | fields).decode())
                answer = await said(socket, "ack", "error")
                if answer["t"] == "ack":
                    return Told("", task=answer["task"])
                return Told(answer["code"], None, answer.get("retry_after_s"))
        except ConnectionClosedError as closed:
            return Told(closed.rcvd.reason, closed.rcvd.code) if closed.rcvd else Told("broken")

    async def _ask_http(self, path: str, body: dict[str, Any], key: str = "") -> Told:
        headers = self.auth | ({"Idempotency-Key": key} if key else {})
        async with httpx.AsyncClient(base_url=self.http, timeout=PATIENCE_S) as client:
            response = await client.post(path, content=msgspec.json.encode(body), headers=headers)
        task = response.headers.get("x-millrace-task", "")
        if response.headers["content-type"] == "text/event-stream":
            last = response.text.strip().rpartition("data: ")[2]
            answer = {} if last == "[DONE]" else msgspec.json.decode(last)
        else:
            answer = response.json()
        error = answer.get("error") or {}
        return Told(error.get("code", ""), response.status_code, error.get("retry_after_s"), task)

    async def _ask_grpc(self, door: str, fields: dict[str, Any]) -> Told:
        if "class" in fields:
            fields["priority_class"] = PriorityClass.Value(f"PRIORITY_CLASS_{fields.pop('class').upper()}")
        deadline_s = fields.pop("deadline_s", None)
        request = pb.SubmitRequest(**fields)
        if deadline_s:
            request.deadline.FromMilliseconds(int(deadline_s * 1000))
        async with grpc.aio.insecure_channel(self.gateway.grpc) as channel:
            stub = InferenceStub(channel)
            try:
                if door == "grpc":
                    return Told("", task=(await stub.Submit(request, metadata=self.metadata)).task)
                task = ""
                async for event in stub.Generate(request, metadata=self.metadata):
                    task = task or event.accepted.task
                    if event.HasField("done"):
                        return Told(event.done.outcome.error_code, task=task)
            except grpc.aio.AioRpcError as error:
                return told_by(error)
        return Told("broken")


async def said(socket: ClientConnection, *kinds: str) -> dict[str, Any]:
    """The next object of one of these kinds; statuses and text before it are dropped."""
    async with asyncio.timeout(PATIENCE_S):
        while (message := msgspec.json.decode(await socket.recv()))["t"] not in kinds:
            pass
        return message


def told_by(error: grpc.aio.AioRpcError) -> Told:
    """Our code in a gRPC error."""
    info = ErrorInfo()
    packed = Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"]).details[0]
    assert packed.Unpack(info)
    return Told(info.reason, error.code())
