"""Live frames from workers. A lost batch costs latency, never a byte, so nothing here complains."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from millrace.frames.v1 import frames_pb2
from millrace.frames.v1.frames_pb2 import Frame, FrameBatch
from services.chassis.framed_server import Called
from services.chassis.framing import FramedConnection, method
from services.gateway.reading.readers import STRIDE

HELD: Final = 32  # batches of one worker that may wait; with more it is not read, and drops what it cannot send


class _Worker:
    """The connection of one worker: its batches in order, a stride in each turn of the loop."""

    def __init__(self, on_frames: Callable[[int, Sequence[Frame]], None], connection: FramedConnection) -> None:
        self._on_frames = on_frames
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[FrameBatch] = deque()
        self._done = 0  # frames of the first one
        connection.send(b"")

    def take(self, message: bytes) -> None:
        self._waiting.append(FrameBatch.FromString(message))
        if len(self._waiting) == 1:
            self._stride()
        elif len(self._waiting) == HELD:
            self._connection.pause()

    def _stride(self) -> None:
        batch, start = self._waiting[0], self._done
        self._done = start + STRIDE
        if self._done >= len(batch.frames):
            self._done = 0
            self._waiting.popleft()
            if not self._waiting:
                self._connection.resume()
        if self._waiting:
            self._loop.call_soon(self._stride)
        self._on_frames(batch.boot, batch.frames[start : start + STRIDE])

    def lost(self) -> None:
        """What arrived is shown."""

    async def leave(self) -> None:
        """Nothing is owed."""


def frames_methods(on_frames: Callable[[int, Sequence[Frame]], None]) -> Mapping[str, Called]:
    """Hand each batch to the readers of this process: `on_frames(boot, frames)`."""
    return {method(frames_pb2, "Frames", "Push"): partial(_Worker, on_frames)}
