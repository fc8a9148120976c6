"""Live frames from workers. A lost batch costs latency, never a byte, so nothing here waits or complains."""

from collections.abc import AsyncIterator
from typing import Any

from millrace.frames.v1.frames_pb2 import FrameBatch, PushSummary
from millrace.frames.v1.frames_pb2_grpc import FramesServicer

from services.gateway.readers import Readers

SERVICE = "millrace.frames.v1.Frames"


class GatewayFrames(FramesServicer):
    """Hands each batch to the readers of this process."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def Push(self, requests: AsyncIterator[FrameBatch], context: Any) -> PushSummary:  # noqa: N802 - gRPC's name
        """One stream per worker, for as long as both live."""
        batches = 0
        async for batch in requests:
            self._readers.on_frames(batch.boot, batch.frames)
            batches += 1
        return PushSummary(batches=batches)
