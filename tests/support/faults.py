"""Everything that tests break: processes and connections.

A process: `Stack.kill`, `pause`, `resume`, or `paused`, `slowed`, `full_disk` and `read_only` here. A connection: `FaultyProxy`, a TCP proxy on a free port whose
behaviour can change at any moment:

    async with FaultyProxy("127.0.0.1", redis_port) as proxy:
        ... connect to proxy.port ...
        proxy.delay_s = 0.2             # each piece, in both directions, from now on
        proxy.drip_bytes = 1            # a byte at a time, a millisecond apart
        proxy.half_open = True          # connections stay, bytes vanish: a peer that is gone without a word
        proxy.cut()                     # reset what is open; new connections work
        proxy.refuse = True             # reset new connections
"""

import asyncio
import contextlib
import resource
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import redis

from services.cli.stack.handle import Stack
from services.cli.stack.slowing import slow

PIECE_BYTES = 65536


@contextlib.contextmanager
def paused(stack: Stack, name: str) -> Iterator[None]:
    """Hold a component (SIGSTOP) during the block: connections stay open, nothing answers."""
    stack.pause(name)
    try:
        yield
    finally:
        stack.resume(name)


@contextlib.contextmanager
def slowed(stack: Stack, name: str, share: float = 0.9) -> Iterator[None]:
    """Hold a component up for a share of the time during the block."""
    pids = [c.pid for c in stack.status.named(name) if c.pid]
    with _meanwhile(lambda over: slow(pids, share, over=over)):
        yield


@contextlib.contextmanager
def full_disk(stack: Stack, name: str = "kafka") -> Iterator[None]:
    """Let every write to a file fail for a component during the block, in all its lives."""
    try:
        with _meanwhile(lambda over: _keep_full(stack, name, over)):
            yield
    finally:
        for pid in {c.pid for c in stack.status.named(name) if c.pid}:
            _limit_files(pid, None)


@contextlib.contextmanager
def _meanwhile(work: Callable[[threading.Event], object]) -> Iterator[None]:
    """Let `work` go on in a thread during the block; the event tells it when the block is over."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _keep_full(stack: Stack, name: str, over: threading.Event) -> None:
    while not over.wait(0.02):
        for component in stack.status.named(name):
            if component.pid:
                _limit_files(component.pid, 0)


def _limit_files(pid: int, largest: int | None) -> None:
    """Bytes that a file of this process may have; None: as many as it was given."""
    with contextlib.suppress(ProcessLookupError):
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most if largest is None else largest, most))


@contextlib.contextmanager
def read_only(stack: Stack) -> Iterator[None]:
    """Let Redis answer and refuse every write during the block, as one does that cannot write its own file."""
    with redis.Redis(port=stack.status.named("redis")[0].ports["port"]) as server:
        server.config_set("min-replicas-to-write", 1)
        try:
            yield
        finally:
            server.config_set("min-replicas-to-write", 0)


class FaultyProxy:
    """A TCP proxy to one address that can misbehave."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.delay_s = 0.0
        self.drip_bytes = 0
        self.half_open = False
        self.refuse = False
        self.connections = 0  # accepted so far

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        await asyncio.sleep(0)  # the turn in which aborted transports let go of their sockets

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every open connection, on both sides."""
        for writer in tuple(self._writers):
            _reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            if self.refuse:
                _reset(writer)
            else:
                back, onward = await asyncio.open_connection(*self._target)
                self._writers.add(onward)
                await asyncio.gather(self._pump(reader, onward), self._pump(back, writer))
        except OSError:
            pass  # one side went away: the other follows
        finally:
            for side in (writer, onward):
                if side is not None:
                    self._writers.discard(side)
                    side.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while piece := await source.read(PIECE_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self.half_open:
                continue
            size = self.drip_bytes or len(piece)
            for start in range(0, len(piece), size):
                sink.write(piece[start : start + size])
                await sink.drain()
                if self.drip_bytes:
                    await asyncio.sleep(0.001)
        if not self.half_open:
            sink.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, not FIN: without lingering the kernel drops what it holds."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
