"""A gateway's frames server that keeps what workers push."""

import asyncio
from typing import Any

import grpc

from millrace.frames.v1.frames_pb2 import FrameBatch, PushSummary
from millrace.frames.v1.frames_pb2_grpc import FramesServicer, add_FramesServicer_to_server


class FakeFrames(FramesServicer):
    """Listens between `come` and `leave`, at the same `address` each time; while `reads` is not set it stands still."""

    def __init__(self) -> None:
        self.address = ""
        self.batches: list[FrameBatch] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._server: grpc.aio.Server | None = None

    async def come(self) -> None:
        """Listen."""
        self._server = grpc.aio.server()
        add_FramesServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def leave(self) -> None:
        """Be gone."""
        if self._server:
            await self._server.stop(None)
            self._server = None

    async def Push(self, request_iterator: Any, context: Any) -> PushSummary:
        await self.reads.wait()
        async for pushed in request_iterator:
            self.batches.append(pushed)
        return PushSummary(batches=len(self.batches))
