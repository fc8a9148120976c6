"""Live frames over gRPC: one long-lived Push stream to each gateway that reads."""

import asyncio
import logging
from collections import deque
from types import TracebackType
from typing import Any, Final, Self

import grpc.aio

from millrace.frames.v1.frames_pb2 import FrameBatch
from millrace.frames.v1.frames_pb2_grpc import FramesStub
from services.chassis.backoff import backoff
from services.chassis.clock import monotonic
from services.chassis.grpc_channel import channel
from services.chassis.metrics import worker_frames_dropped

log = logging.getLogger(__name__)

QUEUE: Final = 256  # batches that may wait for one gateway: seconds of ticks
CONNECT_S: Final = 1.0  # afterwards a reader's watchdog has read the log anyway
IDLE_S: Final = 60.0  # a stream that nobody used for so long is closed


class _Gateway:
    """The stream to one gateway. Connects in the background; what is pushed while it cannot be reached is dropped."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._hopeful = True  # connecting for the first time, or connected
        self._queue: deque[FrameBatch] = deque()
        self._wake = asyncio.Event()
        self._pushed_at = monotonic()

    def push(self, batch: FrameBatch) -> None:
        self._pushed_at = monotonic()
        if self._hopeful and len(self._queue) < QUEUE:
            self._queue.append(batch)
            self._wake.set()
        else:
            worker_frames_dropped.inc()

    async def run(self) -> None:
        """Serve until nobody pushed anything for a while."""
        delays = backoff(0.05, 0.5)
        async with channel(self.address) as line:
            while monotonic() - self._pushed_at < IDLE_S:
                try:
                    async with asyncio.timeout(CONNECT_S):
                        await line.channel_ready()
                    self._hopeful, delays = True, backoff(0.05, 0.5)
                    await self._send(FramesStub(line).Push())  # type: ignore[no-untyped-call]
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as reason:
                    if self._hopeful:
                        log.info("no frames to %s for now: %s", self.address, type(reason).__name__)
                self._hopeful = False
                worker_frames_dropped.inc(len(self._queue))
                self._queue.clear()
                await asyncio.sleep(next(delays))

    async def _send(self, stream: Any) -> None:
        """Write what is pushed, until the stream breaks (AioRpcError, InvalidStateError) or is idle (TimeoutError)."""
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    await stream.write(self._queue.popleft())
        finally:
            stream.cancel()


class GrpcFramePublisher:
    """`FramePublisher` over gRPC. Use as an async context manager."""

    def __init__(self) -> None:
        self._gateways: dict[str, _Gateway] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def push(self, address: str, batch: FrameBatch) -> None:
        """Hand over to the gateway's stream, which is opened if there is none. Never waits."""
        gateway = self._gateways.get(address)
        if gateway is None:
            gateway = self._gateways[address] = _Gateway(address)
            task = self._tasks[address] = asyncio.create_task(gateway.run(), name=f"frames to {address}")
            task.add_done_callback(lambda _: self._forget(address))
        gateway.push(batch)

    def _forget(self, address: str) -> None:
        self._gateways.pop(address, None)
        self._tasks.pop(address, None)
