"""Live frames from workers. A lost batch costs latency, never a byte, so nothing here waits or complains."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from millrace.frames.v1.frames_pb2 import Frame, FrameBatch, PushSummary
from millrace.frames.v1.frames_pb2_grpc import FramesServicer
from services.gateway.readers import STRIDE

SERVICE = "millrace.frames.v1.Frames"


class GatewayFrames(FramesServicer):
    """Hands each batch to the readers of this process: `on_frames(boot, frames)`."""

    def __init__(self, on_frames: Callable[[int, Sequence[Frame]], None]) -> None:
        self._on_frames = on_frames

    async def Push(self, requests: AsyncIterator[FrameBatch], context: Any) -> PushSummary:  # noqa: N802 - gRPC's name
        """One stream per worker, for as long as both live."""
        batches = 0
        async for batch in requests:
            for start in range(0, len(batch.frames), STRIDE):
                self._on_frames(batch.boot, batch.frames[start : start + STRIDE])
                await asyncio.sleep(0)
            batches += 1
        return PushSummary(batches=batches)
