"""A whole gateway in this process: real sockets on loopback, everything behind it in memory, a worker that tests drive."""

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import msgspec
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from millrace.cache.v1.cache_pb2 import LookupReply, LookupRequest, StoreReply, StoreRequest
from millrace.config.v1.config_pb2 import ApiKey, ModelRoute, Pool, RouteTarget, Snapshot, Tenant
from millrace.dispatch.v1.dispatch_pb2 import PoolSignal
from millrace.frames.v1 import frames_pb2
from millrace.frames.v1.frames_pb2 import Frame, FrameBatch
from millrace.inference.v1.inference_pb2_grpc import InferenceStub, add_InferenceServicer_to_server
from millrace.limits.v1.limits_pb2 import CheckReply, CheckRequest
from millrace.router.v1.router_pb2 import Accepted, AcceptReply, AcceptRequest, Rejected
from millrace.task.v1.task_pb2 import (
    CACHE_MARK_EXACT,
    OUTCOME_KIND_COMPLETED,
    Outcome,
    PriorityClass,
    Route,
    Task,
    Timings,
    Usage,
)
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.framed_client import Line, dial
from services.chassis.framed_server import framed_server
from services.chassis.framing import method
from services.chassis.grpc_server import grpc_server
from services.gateway.adapters.memory_presence import MemoryPresence
from services.gateway.adapters.memory_ticket_store import MemoryTicketStore
from services.gateway.assembly import Gateway, World
from services.gateway.core.identity import Directory
from services.gateway.grpc import servicer
from services.gateway.http.server import http_server
from services.gateway.reading.frames_servicer import frames_methods
from services.gateway.settings import GatewaySettings
from services.gateway.websocket.aiohttp_connection import serve_aiohttp
from services.gateway.websocket.session import _Shown
from services.gateway.websocket.slim_connection import SlimServer
from services.tasklog.adapters.memory_task_control import MemoryTaskControl
from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.core.entries import Delta, Header, Terminal

KEY, OTHER_KEY = "mr_local", "mr_other"
BOOT = 77
COMPLETED = Outcome(
    kind=OUTCOME_KIND_COMPLETED,
    finish_reason="stop",
    usage=Usage(prompt_tokens=3, completion_tokens=2),
    timings=Timings(queued_s=0.1, ttft_s=0.2, total_s=0.3, attempts=1),
)


def snapshot() -> Snapshot:
    """Two tenants, two models."""
    names = (("local", KEY), ("other", OTHER_KEY))
    tenants = [
        Tenant(name=name, keys=[ApiKey(name="main", sha256=hashlib.sha256(key.encode()).digest())])
        for name, key in names
    ]
    tenants[1].models.append("tiny")
    tenants[0].classes.extend([PriorityClass.PRIORITY_CLASS_CRITICAL, PriorityClass.PRIORITY_CLASS_STANDARD])
    return Snapshot(
        version="1",
        pools=[Pool(name="tiny", model="tiny", model_revision="1"), Pool(name="sim", model="sim")],
        routes=[
            ModelRoute(model=name, targets=[RouteTarget(pool=name, weight=1)], default_max_tokens=64, max_tokens=1000)
            for name in ("tiny", "sim")
        ],
        tenants=tenants,
    )


class LabSignals:
    """Signals that a test sets."""

    def __init__(self) -> None:
        self.signals: dict[str, PoolSignal] = {}
        self.cancels: list[tuple[str, str]] = []
        self.watched: set[str] = set()

    def age_s(self, pool: str) -> float:
        return 0.0

    def cancel(self, pool: str, task: str) -> None:
        self.cancels.append((pool, task))

    def watch(self, pool: str, task: str) -> None:
        self.watched.add(task)

    def unwatch(self, pool: str, task: str) -> None:
        self.watched.discard(task)


@dataclass
class Backend:
    """Limiter, cache and router. Tests replace what they say."""

    control: MemoryTaskControl
    token_log: MemoryTokenLog
    tasks: dict[str, Task] = field(default_factory=dict)
    accepting: Callable[[AcceptRequest], Awaitable[AcceptReply]] | None = None
    limit: Callable[[CheckRequest], CheckReply] = lambda _: CheckReply(allowed=True)
    found: Callable[[LookupRequest], LookupReply] = lambda _: LookupReply()
    stored: list[StoreRequest] = field(default_factory=list)
    away: set[str] = field(default_factory=set)

    def _there(self, name: str) -> None:
        if name in self.away:
            raise ProblemError(Problem(ErrorCode.UNAVAILABLE, f"the {name} is away"))

    async def check(self, request: CheckRequest, deadline: float) -> CheckReply:
        self._there("limiter")
        return self.limit(request)

    async def lookup(self, request: LookupRequest, deadline: float) -> LookupReply:
        self._there("cache")
        return self.found(request)

    async def store(self, request: StoreRequest, deadline: float) -> StoreReply:
        self.stored.append(request)
        return StoreReply(stored=False)

    async def accept(self, request: AcceptRequest, deadline: float) -> AcceptReply:
        self._there("router")
        if self.accepting is not None:
            return await self.accepting(request)
        return await self.claim(request)

    async def claim(self, request: AcceptRequest) -> AcceptReply:
        """What the router does: claim, or say that another body has the key; a hit is logged as a whole life."""
        task = request.task
        task.pool = task.model
        claim = await self.control.claim(task, 600)
        if not claim.mine:
            return AcceptReply(rejected=Rejected(code="idempotency_conflict", message="the key has another body"))
        if claim.tries == 1:
            self.tasks[task.id] = task
            await self.control.accepted(task.id)
            if request.HasField("answer"):
                outcome = Outcome(kind=OUTCOME_KIND_COMPLETED, finish_reason="stop", cache=CACHE_MARK_EXACT)
                worker = LabWorker(self.token_log, task.id, push=None)
                await worker.begin(1)
                await worker.write(request.answer.text)
                await worker.end(outcome)
        return AcceptReply(accepted=Accepted(pool=task.pool, repeated=claim.tries > 1, joined=task.joined))


class LabWorker:
    """Writes one task's log and pushes frames, as told."""

    def __init__(
        self, token_log: MemoryTokenLog, task: str, push: Callable[[list[tuple[Route, Frame]]], Awaitable[None]] | None
    ) -> None:
        self._log = token_log
        self._task = task
        self._push = push
        self.route: Route | None = None
        self.attempt = self.gen = self.offset = 0
        self.lost = False  # frames are lost on the way

    async def begin(self, attempt: int, *, gen: int = 0, follows: str = "") -> None:
        """A header; a new text unless `gen` names one to continue."""
        self.attempt = attempt
        if not gen:
            self.gen, self.offset = attempt, 0
        await self._log.begin(self._task, Header(attempt, "lab", f"n{attempt}", self._log.run_id, follows), 300)

    async def write(self, text: str) -> None:
        """One delta to the log, then to the readers."""
        start, self.offset = self.offset, self.offset + len(text.encode())
        delta = Delta(self.attempt, self.gen, start, self.offset, text)
        frame = Frame(attempt=self.attempt, gen=self.gen, start=start, end=self.offset, text=text)
        await self._append(delta, frame)

    async def end(self, outcome: Outcome = COMPLETED) -> None:
        """The terminal."""
        terminal = Terminal(self.attempt, self.gen, self.offset, outcome)
        frame = Frame(attempt=self.attempt, gen=self.gen, start=self.offset, end=self.offset, outcome=outcome)
        await self._append(terminal, frame)

    async def _append(self, entry: Delta | Terminal, frame: Frame) -> None:
        (written,) = await self._log.append(self._log.run_id, [(self._task, entry)])
        if self._push is None or self.lost:
            return
        routes = {(r.address, r.boot, r.handle): r for r in [*filter(None, [self.route]), *written.routes]}
        batch = []
        for route in routes.values():
            addressed = Frame()
            addressed.CopyFrom(frame)
            addressed.handle = route.handle
            batch.append((route, addressed))
        await self._push(batch)


class LabSocket:
    """A WebSocket client that speaks objects."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.raw = socket

    async def send(self, **fields: Any) -> None:
        await self.raw.send_str(msgspec.json.encode(fields).decode())

    async def next(self, timeout: float = 5.0) -> dict[str, Any]:
        message = await self.raw.receive(timeout)
        assert message.type is WSMsgType.TEXT, message
        return msgspec.json.decode(message.data)

    async def until(self, kind: str, timeout: float = 5.0) -> dict[str, Any]:
        """The next object of this kind; whatever comes before it is dropped."""
        async with asyncio.timeout(timeout):
            while (message := await self.next())["t"] != kind:
                pass
            return message

    async def closed(self) -> int | None:
        """The close code, once everything before it was read."""
        async with asyncio.timeout(5.0):
            while (await self.raw.receive()).type is WSMsgType.TEXT:
                pass
        return self.raw.close_code

    async def submit(self, **fields: Any) -> dict[str, Any]:
        """Submit, and the acknowledgment."""
        await self.send(**({"t": "submit", "model": "tiny", "input": "hi"} | fields))
        return await self.until("ack")


class Lab:
    """The gateway and its world."""

    def __init__(self, gateway: Gateway, backend: Backend, signals: LabSignals, presence: MemoryPresence) -> None:
        self.gateway = gateway
        self.backend = backend
        self.log = backend.token_log
        self.control = backend.control
        self.signals = signals
        self.presence = presence
        self.http = ""
        self.client: ClientSession
        self.frames: Line
        self.inference: InferenceStub
        self.busy = 0.0
        self._attempts = itertools.count(1 << 40)

    async def socket(self, key: str | None = KEY, **options: Any) -> LabSocket:
        """A connection that has read its hello."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= options.pop("headers", {})
        url = self.http.replace("http", "ws") + "/v1/ws" + options.pop("query", "")
        socket = LabSocket(await self.client.ws_connect(url, headers=headers, protocols=("millrace.v1",), **options))
        if key:
            assert (await socket.next())["t"] == "hello"
        return socket

    def worker(self, task: str) -> LabWorker:
        """A worker for the task; its route is that of the task's record."""
        worker = LabWorker(self.log, task, self._push)
        record = self.backend.tasks.get(task)
        if record is not None and record.HasField("route"):
            worker.route = record.route
        return worker

    async def answer(self, task: str, *texts: str, outcome: Outcome = COMPLETED) -> None:
        """The whole answer, with frames."""
        worker = self.worker(task)
        await worker.begin(next(self._attempts))
        for text in texts:
            await worker.write(text)
        await worker.end(outcome)

    def auth(self, key: str = KEY) -> dict[str, str]:
        """The header that authenticates."""
        return {"Authorization": f"Bearer {key}"}

    async def _push(self, batch: list[tuple[Route, Frame]]) -> None:
        self.frames.send(FrameBatch(boot=BOOT, frames=[frame for _, frame in batch]).SerializeToString())
        await asyncio.sleep(0.001)  # the gateway's turn


@contextlib.asynccontextmanager
async def lab(settings: GatewaySettings | None = None, config: Snapshot | None = None) -> AsyncIterator[Lab]:
    """Start everything, stop everything."""
    settings = settings or GatewaySettings()
    token_log, control, signals, presence = MemoryTokenLog(), MemoryTaskControl(), LabSignals(), MemoryPresence()
    backend = Backend(control, token_log)
    directory = Directory(config or snapshot())
    async with contextlib.AsyncExitStack() as stack:
        slim = await stack.enter_async_context(SlimServer())
        world = World(
            directory=lambda: directory,
            token_log=token_log,
            control=control,
            signals=signals,
            presence=presence,
            tickets=MemoryTicketStore(),
            check=backend.check,
            accept=backend.accept,
            lookup=backend.lookup,
            store=backend.store,
            busy=lambda: it.busy,
        )
        gateway = Gateway(
            settings,
            world,
            secret=b"secret",
            address="lab",
            boot=BOOT,
            serve_websocket=slim.serve if settings.websocket == "slim" else serve_aiohttp,
        )
        it = Lab(gateway, backend, signals, presence)
        watchdog = asyncio.create_task(gateway.readers.run_watchdog())
        stack.push_async_callback(_stopped, watchdog)
        methods = frames_methods(gateway.readers.on_frames)
        frames = await stack.enter_async_context(framed_server("127.0.0.1", 0, methods))

        def register(server: grpc.aio.Server) -> None:
            add_InferenceServicer_to_server(gateway.inference, server)

        services = [servicer.SERVICE]
        server = await stack.enter_async_context(grpc_server("127.0.0.1", 0, register, services, grace_s=0.1))
        it.grpc = f"127.0.0.1:{server.port}"
        http = await stack.enter_async_context(http_server(gateway.app, "127.0.0.1", 0))
        it.http = f"http://127.0.0.1:{http.port}"
        it.client = await stack.enter_async_context(ClientSession(headers={"User-Agent": "lab"}))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(it.grpc))
        it.inference = InferenceStub(channel)
        line = dial(f"127.0.0.1:{frames.port}", method(frames_pb2, "Frames", "Push"), lambda _: None)
        it.frames = await stack.enter_async_context(line)
        await it.frames.listening()
        yield it


def seconds_pass(it: Lab, seconds: float) -> None:
    """Let this much time have passed for all readers."""
    for feed in it.gateway.readers._feeds.by_task.values():
        for reader in feed.readers:
            reader.heard -= seconds
            if isinstance(reader.tag, _Shown):
                reader.tag.status_at -= seconds


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
