"""Many calls in one message, the caller's side. `batched_server` is the other.

The first call after a pause goes at once; those that come within `GAP_S` of a message share the next one, and so everything
behind it: one pipeline, one produce, one reply. One connection to each address and the least outstanding first, because one
connection would stick to one replica.

The messages are those of `protos/millrace/batch`, the methods those of the services' protos, but the transport is a plain
connection (`framing`): these hops are on the way of every acknowledgment, and a message by grpc.aio costs each side some
400 us and four hand-overs between threads more (DECISIONS.md). The caller's first frame names the method, the server's first
frame, an empty one, says that it listens; then Requests go one way and Replies the other.
"""

import asyncio
import itertools
import logging
import socket
from collections.abc import Sequence
from types import ModuleType, TracebackType
from typing import Final, Self

from millrace.batch.v1.batch_pb2 import Item, Reply, Request
from services.chassis.backoff import backoff
from services.chassis.clock import now
from services.chassis.deadline import remaining
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.framing import FramedConnection

log = logging.getLogger(__name__)

MAX_ITEMS: Final = 512
GAP_S: Final = 0.010
CONNECT_S: Final = 5.0
SILENT_S: Final = 3.0  # a server that owes answers and says nothing for so long is connected to anew
KEEPALIVE_S: Final = 10  # of an idle connection
LAST_LOOK_S: Final = 0.002  # the loop reads what has arrived before a timer that is due this much later


def method(protos: ModuleType, service: str, name: str) -> str:
    """The full name of a method that a proto file declares. Raises KeyError if it does not.

    >>> from millrace.router.v1 import router_pb2
    >>> method(router_pb2, "Router", "Accept")
    'millrace.router.v1.Router.Accept'
    """
    full_name: str = protos.DESCRIPTOR.services_by_name[service].methods_by_name[name].full_name
    return full_name


def addresses_of(text: str) -> list[str]:
    """The addresses of a setting, comma-separated.

    >>> addresses_of("127.0.0.1:1, 127.0.0.1:2,")
    ['127.0.0.1:1', '127.0.0.1:2']
    """
    return [address.strip() for address in text.split(",") if address.strip()]


def _unavailable(message: str) -> ProblemError:
    return ProblemError(Problem(ErrorCode.UNAVAILABLE, message))


class _Line:
    """The connection to one address; it comes back by itself."""

    def __init__(self, address: str, method: str) -> None:
        self.address = address
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._method = method.encode()
        self._loop = asyncio.get_running_loop()
        self._connection: FramedConnection | None = None
        self._heard = asyncio.Event()  # the server's first frame
        self._lost = asyncio.Event()
        self._queue: list[Item] = []
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self._owed_since: float | None = None  # when something was sent that nothing has come after
        self.waiting: dict[int, asyncio.Future[bytes]] = {}

    @property
    def up(self) -> bool:
        """Does a server listen?"""
        return self._connection is not None and self._heard.is_set() and not self._lost.is_set()

    def call(self, item: Item) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = self._loop.create_future()
        self.waiting[item.call_id] = future
        self._queue.append(item)
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_at(self._flushed_at + GAP_S, self._flush)
        return future

    def expire(self, call_id: int) -> None:
        """The call's time is over; but when this loop was held up, the answer may be here and only not be read yet."""
        if call_id in self.waiting:
            self._loop.call_later(LAST_LOOK_S, self._give_up, call_id)

    def _give_up(self, call_id: int) -> None:
        if future := self.waiting.pop(call_id, None):
            if not future.done():
                future.set_exception(_unavailable(f"{self.address} did not answer in time"))
            if self._owed_since is not None and self._loop.time() - self._owed_since > SILENT_S and self._connection:
                log.warning("%s says nothing and is connected to anew", self.address)
                self._connection.abort()

    async def run(self) -> None:
        delays = backoff(0.05, 0.5)
        while True:
            self._heard.clear()
            self._lost.clear()
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._connect()
                    await self._heard.wait()
            except (OSError, TimeoutError) as reason:
                log.debug("batched calls to %s: %s", self.address, reason)
            if self.up:
                delays = backoff(0.05, 0.5)
                await self._lost.wait()
            self.close()
            self._fail(f"the connection to {self.address} was lost")
            await asyncio.sleep(next(delays))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.abort()

    async def _connect(self) -> None:
        transport, self._connection = await self._loop.create_connection(
            lambda: FramedConnection(self._take, self._on_lost), self._host, self._port
        )
        _keep_alive(transport)
        self._connection.send(self._method)

    def _on_lost(self) -> None:
        self._lost.set()
        self._heard.set()

    def _flush(self) -> None:
        self._flush_timer = None
        self._flushed_at = self._loop.time()
        while self._queue and self._connection:
            items, self._queue = self._queue[:MAX_ITEMS], self._queue[MAX_ITEMS:]
            self._connection.send(Request(items=items).SerializeToString())
            self._owed_since = self._owed_since or self._flushed_at

    def _take(self, frame: bytes) -> None:
        self._heard.set()
        self._owed_since = None
        for result in Reply.FromString(frame).results:
            future = self.waiting.pop(result.call_id, None)
            if future is None or future.done():
                continue
            if result.error_code:
                future.set_exception(ProblemError(Problem(ErrorCode(result.error_code), result.error_message)))
            else:
                future.set_result(result.result)

    def _fail(self, message: str) -> None:
        self._owed_since = None
        self._queue.clear()
        waiting, self.waiting = self.waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(_unavailable(message))


class BatchedClient:
    """Calls to the replicas of one service. Use as an async context manager; entering waits for no server.

    `method` is the full name of the method that all calls are of.
    """

    def __init__(self, addresses: Sequence[str], method: str) -> None:
        self._addresses, self._method = tuple(addresses), method
        self._lines: list[_Line] = []
        self._ids = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._lines = [_Line(address, self._method) for address in self._addresses]
        self._tasks = [asyncio.create_task(line.run(), name=f"batched calls {line.address}") for line in self._lines]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in self._lines:
            line.close()

    @property
    def ready(self) -> bool:
        """Is any replica connected?"""
        return any(line.up for line in self._lines)

    async def call(self, payload: bytes, deadline: float, traceparent: str = "") -> bytes:
        """Send one item and wait for its result until `deadline` (Unix seconds).

        Raises ProblemError: `unavailable` without a connection or answer in time, else the server's error.
        """
        line = min((each for each in self._lines if each.up), key=lambda each: len(each.waiting), default=None)
        if line is None:
            raise _unavailable("no replica is connected")
        call_id = next(self._ids)
        future = line.call(
            Item(call_id=call_id, deadline_ms=int(deadline * 1000), traceparent=traceparent, payload=payload)
        )
        timer = self._loop.call_later(remaining(deadline, now()), line.expire, call_id)
        try:
            return await future
        finally:
            timer.cancel()
            line.waiting.pop(call_id, None)


def _keep_alive(transport: asyncio.BaseTransport) -> None:
    """Notice a host that vanished from an idle connection."""
    connected: socket.socket = transport.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", KEEPALIVE_S), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
