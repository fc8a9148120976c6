"""Live frames over one long-lived connection to each gateway that reads."""

import asyncio
import contextlib
import logging
from collections import deque
from typing import Final, Self

from millrace.frames.v1 import frames_pb2
from millrace.frames.v1.frames_pb2 import FrameBatch
from services.chassis.background import call_off
from services.chassis.backoff import backoff
from services.chassis.clock import monotonic
from services.chassis.framed_client import Line, dial
from services.chassis.framing import method
from services.chassis.metrics import worker_frames_dropped

log = logging.getLogger(__name__)

PUSH: Final = method(frames_pb2, "Frames", "Push")
QUEUE: Final = 256  # batches that may wait for a connection: seconds of ticks
UNSENT: Final = 4 * 1024 * 1024  # bytes that a gateway which stands still may leave unread
CONNECT_S: Final = 1.0  # afterwards a reader's watchdog has read the log anyway
IDLE_S: Final = 60.0  # a connection that nobody used for so long is closed


class _Gateway:
    """The connection to one gateway, made in the background; what is pushed while it cannot be reached is dropped."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._hopeful = True  # connecting for the first time
        self._line: Line | None = None
        self._queue: deque[FrameBatch] = deque()
        self._pushed_at = monotonic()

    def push(self, batch: FrameBatch) -> None:
        self._pushed_at = monotonic()
        if self._line and not self._line.lost.is_set() and self._line.connection.unsent <= UNSENT:
            self._line.send(batch.SerializeToString())
        elif self._hopeful and len(self._queue) < QUEUE:
            self._queue.append(batch)
        else:
            worker_frames_dropped.inc()

    async def run(self) -> None:
        """Serve until nobody pushed anything for a while."""
        delays = backoff(0.05, 0.5)
        while not self._idle():
            try:
                async with dial(self.address, PUSH, lambda _: None, within_s=CONNECT_S) as line:
                    await line.listening()
                    self._begin(line)
                    delays = backoff(0.05, 0.5)
                    while not (line.lost.is_set() or self._idle()):
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(IDLE_S):
                                await line.lost.wait()
                    if self._idle():
                        return
            except (OSError, TimeoutError) as reason:
                if self._hopeful:
                    log.info("no frames to %s for now: %s", self.address, reason or type(reason).__name__)
            finally:
                self._line = None
            self._hopeful = False
            worker_frames_dropped.inc(len(self._queue))
            self._queue.clear()
            await asyncio.sleep(next(delays))

    def _begin(self, line: Line) -> None:
        self._line = line
        while self._queue:
            line.send(self._queue.popleft().SerializeToString())

    def _idle(self) -> bool:
        return monotonic() - self._pushed_at >= IDLE_S


class FramedFramePublisher:
    """`FramePublisher` over framed connections. Use as an async context manager."""

    def __init__(self) -> None:
        self._gateways: dict[str, _Gateway] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await call_off(self._tasks.values())

    def push(self, address: str, batch: FrameBatch) -> None:
        """Hand over to the gateway's connection, which is made if there is none. Never waits."""
        gateway = self._gateways.get(address)
        if gateway is None:
            gateway = self._gateways[address] = _Gateway(address)
            task = self._tasks[address] = asyncio.create_task(gateway.run(), name=f"frames to {address}")
            task.add_done_callback(lambda _: self._forget(address))
        gateway.push(batch)

    def _forget(self, address: str) -> None:
        self._gateways.pop(address, None)
        self._tasks.pop(address, None)
