"""Gateways that speak the client protocol over answers that are made up: for the Python client and for the page.

A `FakePlatform` holds the tasks, any number of `FakeGateway`s serve it, as replicas do: WebSocket, SSE, tickets, gRPC. The
answer to a prompt is a pure function of it, so a test knows every byte. Faults are plain attributes: a test sets them.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
from aiohttp import WSMsgType, web
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from millrace.inference.v1 import inference_pb2 as pb
from millrace.inference.v1 import inference_pb2_grpc
from millrace.task.v1 import task_pb2

KEY = "mr_" + "a" * 32
WORDS = [
    "once",
    "upon",
    "a",
    "mill",
    "the",
    "river",
    "carried",
    "träume",
    "水",
    "and",
    "🌊",
    "through",
    "every",
    "wheel,",
    "",
]
FAILURES = {"fail": "engine_failed", "expire": "expired"}


def answer_of(prompt: str, pieces: int = 24) -> list[str]:
    """The pieces of the answer to a prompt."""
    seed = hashlib.sha256(prompt.encode()).digest()
    return [WORDS[seed[i % 32] % len(WORDS)] + " " for i in range(pieces)]


@dataclass
class FakeTask:
    """One task; `known` pieces of its answer exist."""

    id: str
    key: str
    body: dict[str, Any]
    pieces: list[str]
    gen: str = "g1"
    known: int = 0
    outcome: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        return "".join(self.pieces[: self.known])

    @property
    def state(self) -> str:
        return self.outcome or ("running" if self.known else "queued")

    def change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def terminal(self) -> dict[str, Any]:
        code = {"failed": "engine_failed", "expired": "expired", "cancelled": "cancelled"}.get(self.outcome)
        return {
            "outcome": self.outcome,
            "finish_reason": "stop" if self.outcome == "completed" else self.outcome,
            "usage": {"prompt_tokens": 7, "cached_tokens": 2, "completion_tokens": self.known},
            "timings": {"queued_s": 0.012, "ttft_s": 0.085, "total_s": 1.5, "attempts": 1},
            "cache": self.body.get("cache_mark"),
            "error": {"code": code, "message": "it did not work", "retryable": code == "engine_failed"}
            if code
            else None,
        }


class FakePlatform:
    """The tasks behind all gateways. `piece_s` paces an answer, `queue_s` is the wait before it."""

    def __init__(self, piece_s: float = 0.0, queue_s: float = 0.0, pieces: int = 24) -> None:
        self.piece_s = piece_s
        self.queue_s = queue_s
        self.pieces = pieces
        self.tasks: dict[str, FakeTask] = {}
        self.tickets: set[str] = set()
        self.submits = 0
        self.refuse: dict[str, Any] | None = None  # an `error` object for the next submissions
        self.refusals = 0
        self.resume_refusals = 0  # how many of the next `resume` are refused for a moment
        self.restart_at: int | None = None  # lose the text once this many pieces exist
        self._running: set[asyncio.Task[None]] = set()

    def submit(self, body: dict[str, Any]) -> FakeTask | dict[str, Any]:
        """The task, the same for the same key; or an `error` object."""
        self.submits += 1
        if self.refuse is not None and self.refusals > 0:
            self.refusals -= 1
            return self.refuse
        if body.get("model") not in {"tiny", "sim"}:
            return error("unknown_model", f"model: there is no {body.get('model')!r}", field="model")
        key = body.get("key") or secrets.token_hex(8)
        task_id = base64.b32encode(hashlib.sha256(key.encode()).digest()[:16]).decode().rstrip("=").lower()
        if task_id not in self.tasks:
            said = body["input"] if isinstance(body["input"], str) else body["input"][-1]["content"]
            task = self.tasks[task_id] = FakeTask(task_id, key, body, answer_of(said, self.pieces))
            running = asyncio.create_task(self._run(task, said))
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        return self.tasks[task_id]

    async def _run(self, task: FakeTask, said: str) -> None:
        await asyncio.sleep(self.queue_s)
        while task.known < len(task.pieces) and not task.outcome:
            task.known += 1
            task.change()
            if self.restart_at == task.known:
                self.restart_at, task.gen, task.known = None, "g2", 0
                task.pieces = answer_of(said + " again", self.pieces)
            await asyncio.sleep(self.piece_s)
            if task.known == 3 and said in FAILURES:
                task.outcome = "failed" if said == "fail" else "expired"
        task.outcome = task.outcome or "completed"
        task.change()

    def cancel(self, task: FakeTask) -> None:
        """End it where it is."""
        task.outcome = task.outcome or "cancelled"
        task.change()

    async def follow(self, task: FakeTask, gen: str, offset: int) -> AsyncIterator[dict[str, Any]]:
        """What a reader with this cursor gets, to the end."""
        if not task.known:
            yield {"t": "status", "task": task.id, "state": "queued", "position": 3, "eta_s": 1.5}
        while True:
            changed = task.changed
            if gen and gen != task.gen:
                offset = 0
                yield {"t": "restarted", "task": task.id, "gen": task.gen, "offset": 0}
            gen = task.gen
            fresh = task.text.encode()[offset:]
            if fresh:
                offset += len(fresh)
                yield {"t": "delta", "task": task.id, "gen": gen, "offset": offset, "text": fresh.decode()}
            elif task.outcome:
                yield {"t": "done", "task": task.id, "gen": gen, "offset": offset, **task.terminal()}
                return
            else:
                await changed.wait()

    async def stop(self) -> None:
        """End what runs."""
        for running in list(self._running):
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def error(code: str, message: str, **more: Any) -> dict[str, Any]:
    """An `error` object."""
    return {"t": "error", "code": code, "message": message, "retryable": more.pop("retryable", False), **more}


HTTP_STATUS = {
    "unauthenticated": 401,
    "unknown_model": 404,
    "unknown_task": 404,
    "limited": 429,
    "invalid_request": 400,
}
GRPC_STATUS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class FakeGateway(inference_pb2_grpc.InferenceServicer):
    """One replica. `cuts` holds, for the connections to come, after how many objects each breaks; then none breaks."""

    def __init__(self, platform: FakePlatform, page: Path | None = None) -> None:
        self.platform = platform
        self.page = page
        self.cuts: list[int] = []
        self.connections = 0
        self.sockets: set[web.WebSocketResponse] = set()
        self.url = self.grpc_url = ""
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serve; the ports stay the same over stop and start."""
        self._grpc = grpc.aio.server()
        inference_pb2_grpc.add_InferenceServicer_to_server(self, self._grpc)  # type: ignore[no-untyped-call]
        self.grpc_url = f"127.0.0.1:{self._grpc.add_insecure_port(self.grpc_url or '127.0.0.1:0')}"
        await self._grpc.start()
        app = web.Application()
        app.add_routes([
            web.get("/v1/ws", self._websocket),
            web.post("/v1/tickets", self._ticket),
            web.get("/v1/models", self._models),
            web.post("/v1/tasks", self._post_task),
            web.get("/v1/tasks/{id}", self._get_task),
            web.delete("/v1/tasks/{id}", self._delete_task),
            web.get("/v1/tasks/{id}/stream", self._sse),
        ])  # fmt: skip
        if self.page is not None:
            app.router.add_get("/", self._index)
            app.router.add_static("/page/", self.page)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Break every connection and stop listening, as a killed process does."""
        await self._grpc.stop(None)
        for socket in list(self.sockets):
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()
        await self._runner.cleanup()

    async def _index(self, request: web.Request) -> web.StreamResponse:
        assert self.page is not None
        policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
        return web.FileResponse(self.page / "index.html", headers={"Content-Security-Policy": policy})

    def _cut(self) -> Callable[[], bool]:
        """Says, object by object, whether the connection breaks now."""
        self.connections += 1
        left = [self.cuts.pop(0)] if self.cuts else []

        def now() -> bool:
            if not left:
                return False
            left[0] -= 1
            return left[0] < 0

        return now

    # -- WebSocket ------------------------------------------------------------------------------------------------------

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        ticket = request.query.get("ticket")
        socket = web.WebSocketResponse(protocols=("millrace.v1",))
        await socket.prepare(request)
        if ticket in self.platform.tickets:
            self.platform.tickets.discard(ticket)
        elif request.headers.get("Authorization") != f"Bearer {KEY}":
            await socket.close(code=4401, message=b"no such key")
            return socket
        self.sockets.add(socket)
        cut, readers = self._cut(), set[asyncio.Task[None]]()

        async def send(thing: dict[str, Any]) -> None:
            if cut():
                assert request.transport is not None
                request.transport.abort()
            await socket.send_str(json.dumps(thing, ensure_ascii=False))

        async def read(task: FakeTask, gen: str, offset: int) -> None:
            with contextlib.suppress(ConnectionError):
                async for thing in self.platform.follow(task, gen, offset):
                    await send(thing)

        def follow(task: FakeTask, gen: str = "", offset: int = 0) -> None:
            reader = asyncio.create_task(read(task, gen, offset))
            readers.add(reader)
            reader.add_done_callback(readers.discard)

        try:
            hello = {"protocol": "millrace.v1", "gateway": self.url, "heartbeat_s": 20.0}
            await send({"t": "hello", **hello, "max_in_flight": 64, "max_frame_bytes": 262144})
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                asked = json.loads(message.data)
                kind, task = asked.pop("t"), self.platform.tasks.get(asked.get("task", ""))
                if kind == "submit":
                    made = self.platform.submit(asked)
                    if isinstance(made, dict):
                        await send({**made, "key": asked.get("key", "")})
                    else:
                        ack = {
                            "t": "ack",
                            "key": made.key,
                            "task": made.id,
                            "state": "queued",
                            "position": 3,
                            "eta_s": 1.5,
                        }
                        await send({**ack, "cache": None})
                        follow(made)
                elif kind == "ping":
                    await send({"t": "pong"})
                elif task is None:
                    await send({"t": "gone", "task": asked.get("task", ""), "code": "unknown"})
                elif kind == "resume" and self.platform.resume_refusals > 0:
                    self.platform.resume_refusals -= 1
                    limited = error("limited", "too many readers", retryable=True, retry_after_s=0.1, task=task.id)
                    await send(limited)
                elif kind == "resume":
                    follow(task, asked.get("gen", ""), asked.get("offset", 0))
                elif kind == "cancel":
                    self.platform.cancel(task)
        except ConnectionError:
            pass
        finally:
            self.sockets.discard(socket)
            for reader in readers:
                reader.cancel()
        return socket

    async def leave(self) -> None:
        """Say `going_away` on every connection and close it."""
        for socket in list(self.sockets):
            await socket.send_str(json.dumps({"t": "going_away", "reconnect_in_s": 0.05}))
            await socket.close(code=1012)

    # -- HTTP -----------------------------------------------------------------------------------------------------------

    async def _ticket(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return refusal(error("unauthenticated", "this API key is not known"))
        ticket = secrets.token_urlsafe(32)
        self.platform.tickets.add(ticket)
        return web.json_response({"ticket": ticket, "expires_in_s": 30})

    async def _models(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return refusal(error("unauthenticated", "this API key is not known"))
        return web.json_response(
            {"object": "list", "data": [{"id": name, "object": "model"} for name in ("tiny", "sim")]}
        )

    async def _post_task(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return refusal(error("unauthenticated", "no such key"))
        if self._cut()():
            assert request.transport is not None
            request.transport.abort()
        made = self.platform.submit(await request.json() | {"key": request.headers.get("Idempotency-Key", "")})
        if isinstance(made, dict):
            return refusal(made)
        body = {"key": made.key, "task": made.id, "state": "queued", "position": 3, "eta_s": 1.5, "cache": None}
        return web.json_response(body, status=202, headers={"Location": f"/v1/tasks/{made.id}"})

    def _task(self, request: web.Request) -> FakeTask | None:
        return self.platform.tasks.get(request.match_info["id"])

    async def _get_task(self, request: web.Request) -> web.StreamResponse:
        if (task := self._task(request)) is None:
            return refusal(error("unknown_task", "no such task"))
        body: dict[str, Any] = {"task": task.id, "state": task.state, "model": task.body["model"], "gen": task.gen}
        body |= {"offset": len(task.text.encode()), "text": task.text}
        return web.json_response(body | (task.terminal() if task.outcome else {}))

    async def _delete_task(self, request: web.Request) -> web.StreamResponse:
        if (task := self._task(request)) is None:
            return refusal(error("unknown_task", "no such task"))
        self.platform.cancel(task)
        return web.json_response({"task": task.id, "state": task.state})

    async def _sse(self, request: web.Request) -> web.StreamResponse:
        if (task := self._task(request)) is None:
            return refusal(error("unknown_task", "no such task"))
        gen, _, offset = request.headers.get("Last-Event-ID", ":0").rpartition(":")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        cut = self._cut()
        await response.write(b": keep-alive\n\n")
        with contextlib.suppress(ConnectionError):
            async for thing in self.platform.follow(task, gen, int(offset)):
                if cut():
                    assert request.transport is not None
                    request.transport.abort()
                    break
                where = f"id: {thing['gen']}:{thing['offset']}\n" if "offset" in thing else ""
                data = json.dumps(thing, ensure_ascii=False)
                await response.write(f"event: {thing['t']}\n{where}data: {data}\n\n".encode())
        return response

    # -- gRPC -----------------------------------------------------------------------------------------------------------

    async def Generate(
        self, request: pb.SubmitRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.WatchEvent]:
        await self._authenticate(context)
        cut = self._cut()
        body = {
            "key": request.key,
            "model": request.model,
            "input": request.input or [{"content": request.messages[-1].content}],
        }
        made = self.platform.submit(body)
        if isinstance(made, dict):
            await abort(context, made)
            return
        yield pb.WatchEvent(accepted=pb.Accepted(key=made.key, task=made.id, state="queued", position=3, eta_s=1.5))
        async for event in self._events(made, "", 0, cut, context):
            yield event

    async def Watch(self, request: pb.WatchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.WatchEvent]:
        await self._authenticate(context)
        if (task := self.platform.tasks.get(request.task)) is None:
            await abort(context, error("unknown_task", "no such task"))
            return
        async for event in self._events(task, request.gen, request.offset, self._cut(), context):
            yield event

    async def _events(
        self, task: FakeTask, gen: str, offset: int, cut: Callable[[], bool], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.WatchEvent]:
        async for thing in self.platform.follow(task, gen, offset):
            if cut():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
            yield event_of(thing)

    async def Get(self, request: pb.GetRequest, context: grpc.aio.ServicerContext) -> pb.TaskView:
        await self._authenticate(context)
        if (task := self.platform.tasks.get(request.task)) is None:
            await abort(context, error("unknown_task", "no such task"))
            raise AssertionError
        view = pb.TaskView(task=task.id, state=task.state, model=task.body["model"], gen=task.gen, text=task.text)
        view.offset = len(task.text.encode())
        return view

    async def Cancel(self, request: pb.CancelRequest, context: grpc.aio.ServicerContext) -> pb.CancelReply:
        await self._authenticate(context)
        if (task := self.platform.tasks.get(request.task)) is None:
            await abort(context, error("unknown_task", "no such task"))
            raise AssertionError
        self.platform.cancel(task)
        return pb.CancelReply(state=task.state)

    async def _authenticate(self, context: grpc.aio.ServicerContext) -> None:
        metadata = {str(name): value for name, value in context.invocation_metadata() or ()}
        if metadata.get("authorization") != f"Bearer {KEY}":
            await abort(context, error("unauthenticated", "no such key"))


def refusal(thing: dict[str, Any]) -> web.Response:
    """An error object as an HTTP answer."""
    body = {name: value for name, value in thing.items() if name != "t"}
    headers = {"Retry-After": str(thing["retry_after_s"])} if "retry_after_s" in thing else {}
    return web.json_response({"error": body}, status=HTTP_STATUS.get(thing["code"], 503), headers=headers)


async def abort(context: grpc.aio.ServicerContext, thing: dict[str, Any]) -> None:
    """An error object as a gRPC status with details."""
    status = GRPC_STATUS.get(HTTP_STATUS.get(thing["code"], 503), grpc.StatusCode.UNAVAILABLE)
    details = [error_details_pb2.ErrorInfo(reason=thing["code"], domain="millrace.dev")]
    packed = [AnyMessage() for _ in details]
    for into, detail in zip(packed, details, strict=True):
        into.Pack(detail)
    rich = status_pb2.Status(code=status.value[0], message=thing["message"], details=packed)
    if "retry_after_s" in thing:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(thing["retry_after_s"] * 1000))
        rich.details.add().Pack(retry)
    context.set_trailing_metadata((("grpc-status-details-bin", rich.SerializeToString()),))
    await context.abort(status, thing["message"])


def event_of(thing: dict[str, Any]) -> pb.WatchEvent:
    """An object of the WebSocket as a gRPC event."""
    match thing["t"]:
        case "status":
            return pb.WatchEvent(
                status=pb.Status(state=thing["state"], position=thing["position"], eta_s=thing["eta_s"])
            )
        case "delta":
            return pb.WatchEvent(delta=pb.Delta(gen=thing["gen"], offset=thing["offset"], text=thing["text"]))
        case "restarted":
            return pb.WatchEvent(restarted=pb.Restarted(gen=thing["gen"]))
    kind = {"completed": 1, "cancelled": 2, "expired": 3, "failed": 4}[thing["outcome"]]
    outcome = task_pb2.Outcome(kind=kind, finish_reason=thing["finish_reason"])  # type: ignore[arg-type]
    outcome.usage.CopyFrom(task_pb2.Usage(**thing["usage"]))
    outcome.timings.CopyFrom(task_pb2.Timings(**thing["timings"]))
    if thing["error"]:
        outcome.error_code, outcome.error_message = thing["error"]["code"], thing["error"]["message"]
    return pb.WatchEvent(done=pb.Done(gen=thing["gen"], offset=thing["offset"], outcome=outcome))


class ServedGateway:
    """A gateway in a thread of its own, for tests that block theirs. `call` runs a coroutine over there."""

    def __init__(self, platform: FakePlatform, page: Path | None = None) -> None:
        self.platform = platform
        self.gateway = FakeGateway(platform, page)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="fake gateway")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self.gateway:
            self._ready.set()
            await self._stop.wait()
            await self.platform.stop()


async def serve_page(page: Path) -> None:
    """Serve the playground over a paced fake platform and print its address; for work on the page by hand."""
    platform = FakePlatform(piece_s=0.08, queue_s=0.6, pieces=120)
    async with FakeGateway(platform, page) as gateway:
        print(f"{gateway.url}/#key={KEY}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve_page(Path(__file__).parents[2] / "services/gateway/page"))
