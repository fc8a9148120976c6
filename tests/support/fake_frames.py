"""A gateway's frames server that keeps what workers push."""

import asyncio
from contextlib import AsyncExitStack

from millrace.frames.v1 import frames_pb2
from millrace.frames.v1.frames_pb2 import FrameBatch
from services.chassis.framed_server import framed_server
from services.chassis.framing import FramedConnection, method


class FakeFrames:
    """Listens between `come` and `leave`, at the same `address` each time; while `reads` is not set it stands still."""

    def __init__(self) -> None:
        self.address = ""
        self.batches: list[FrameBatch] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._serving = AsyncExitStack()

    async def come(self) -> None:
        """Listen."""
        port = int(self.address.rpartition(":")[2] or 0)
        methods = {method(frames_pb2, "Frames", "Push"): lambda connection: _Worker(self, connection)}
        server = await self._serving.enter_async_context(framed_server("127.0.0.1", port, methods, grace_s=0.0))
        self.address = f"127.0.0.1:{server.port}"

    async def leave(self) -> None:
        """Be gone."""
        await self._serving.aclose()


class _Worker:
    def __init__(self, gateway: FakeFrames, connection: FramedConnection) -> None:
        self._gateway = gateway
        connection.send(b"")
        if not gateway.reads.is_set():
            connection.pause()
            self._resuming = asyncio.create_task(self._resume(connection))

    async def _resume(self, connection: FramedConnection) -> None:
        await self._gateway.reads.wait()
        connection.resume()

    def take(self, message: bytes) -> None:
        self._gateway.batches.append(FrameBatch.FromString(message))

    def lost(self) -> None:
        """The worker went."""

    async def leave(self) -> None:
        """Nothing is owed."""
