"""Many calls in one message, the caller's side. `batched_server` is the other.

The first call after a pause goes at once; those that come within `gap_s` of a message share the next one, and so everything
behind it: one pipeline, one produce, one reply. One connection (`framing`) to each address and the least outstanding first,
because one connection would stick to one replica. The messages are Request and Reply of `protos/millrace/batch`.
"""

import asyncio
import ipaddress
import itertools
import logging
import socket
from collections.abc import Sequence
from typing import Final, Self

from millrace.batch.v1.batch_pb2 import Item, Reply, Request
from services.chassis.background import call_off
from services.chassis.backoff import backoff
from services.chassis.clock import now
from services.chassis.deadline import remaining
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.framed_client import Line, dial
from services.chassis.gather import Gather

log = logging.getLogger(__name__)

MAX_ITEMS: Final = 512
GAP_S: Final = 0.010
SILENT_S: Final = 3.0  # a server that owes answers and says nothing for so long is connected to anew
RESOLVE_S: Final = 2.0  # between two looks at what a name stands for
LAST_LOOK_S: Final = 0.002  # the loop reads what has arrived before a timer that is due this much later


def addresses_of(text: str) -> list[str]:
    """The addresses of a setting, comma-separated.

    >>> addresses_of("127.0.0.1:1, 127.0.0.1:2,")
    ['127.0.0.1:1', '127.0.0.1:2']
    """
    return [address.strip() for address in text.split(",") if address.strip()]


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True


async def _resolve(name: str) -> set[str]:
    """All `ip:port` of a `host:port`. Raises OSError."""
    host, _, port = name.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    return {f"{place[0]!s}:{port}" for *_, place in found}


def _unavailable(message: str) -> ProblemError:
    return ProblemError(Problem(ErrorCode.UNAVAILABLE, message))


class _Replica:
    """The connection to one address; it comes back by itself."""

    def __init__(self, address: str, method: str, gap_s: float) -> None:
        self.address = address
        self._method = method
        self._loop = asyncio.get_running_loop()
        self._line: Line | None = None
        self._queue: Gather[Item] = Gather(self._send, gap_s)
        self._owed_since: float | None = None  # when something was sent that nothing has come after
        self.waiting: dict[int, asyncio.Future[bytes]] = {}

    @property
    def up(self) -> bool:
        """Does a server listen?"""
        return self._line is not None and not self._line.lost.is_set()

    def call(self, item: Item) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = self._loop.create_future()
        self.waiting[item.call_id] = future
        self._queue.put(item)
        return future

    def expire(self, call_id: int) -> None:
        """The call's time is over; but when this loop was held up, the answer may be here and only not be read yet."""
        if call_id in self.waiting:
            self._loop.call_later(LAST_LOOK_S, self._give_up, call_id)

    def _give_up(self, call_id: int) -> None:
        if future := self.waiting.pop(call_id, None):
            if not future.done():
                future.set_exception(_unavailable(f"{self.address} did not answer in time"))
            if self._owed_since is not None and self._loop.time() - self._owed_since > SILENT_S and self._line:
                log.warning("%s says nothing and is connected to anew", self.address)
                self._line.connection.abort()

    async def run(self) -> None:
        delays = backoff(0.05, 0.5)
        while True:
            try:
                async with dial(self.address, self._method, self._take) as line:
                    await line.listening()
                    self._line, delays = line, backoff(0.05, 0.5)
                    await line.lost.wait()
            except (OSError, TimeoutError) as reason:
                log.debug("batched calls to %s: %s", self.address, reason)
            finally:
                self._line = None
            self._fail(f"the connection to {self.address} was lost")
            await asyncio.sleep(next(delays))

    def _send(self, items: list[Item]) -> None:
        if self._line is None:
            return
        for start in range(0, len(items), MAX_ITEMS):
            self._line.send(Request(items=items[start : start + MAX_ITEMS]).SerializeToString())
        self._owed_since = self._owed_since or self._loop.time()

    def _take(self, message: bytes) -> None:
        self._owed_since = None
        for result in Reply.FromString(message).results:
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

    `addresses` are `host:port`; a name stands for all addresses that it has, now and later: a headless Service names its pods.
    `method` is the full name of the method that all calls are of.

    What one client has gathered comes back together, and the next on its way needs a shorter `gap_s`: with the same one it would
    wait for a second gap, because a queue that is served exactly as often as it is fed never gets rid of a delay.
    """

    def __init__(self, addresses: Sequence[str], method: str, gap_s: float = GAP_S) -> None:
        self._addresses, self._method, self._gap_s = tuple(addresses), method, gap_s
        self._lines: dict[str, tuple[_Replica, asyncio.Task[None]]] = {}
        self._ids = itertools.count(1)
        self._following: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        for address in self._addresses:
            if _is_ip(address):
                self._connect(address)
            else:
                self._following.append(asyncio.create_task(self._follow(address), name=f"addresses of {address}"))
        return self

    def _connect(self, address: str) -> None:
        replica = _Replica(address, self._method, self._gap_s)
        self._lines[address] = (replica, asyncio.create_task(replica.run(), name=f"batched calls {address}"))

    async def _follow(self, name: str) -> None:
        """Connect to what a name stands for. What it names no longer is used for as long as it answers."""
        known: set[str] = set()
        while True:
            try:
                named = await _resolve(name)
            except OSError as reason:
                log.debug("%s has no address: %s", name, reason)
            else:
                for address in named - self._lines.keys():
                    self._connect(address)
                for address in known - named:
                    replica, task = self._lines[address]
                    if not replica.up:
                        task.cancel()
                        del self._lines[address]
                known = (known | named) & self._lines.keys()
            await asyncio.sleep(RESOLVE_S)

    @property
    def _replicas(self) -> list[_Replica]:
        return [replica for replica, _ in self._lines.values()]

    async def __aexit__(self, *exc_info: object) -> None:
        await call_off((*self._following, *(task for _, task in self._lines.values())))

    @property
    def ready(self) -> bool:
        """Is any replica connected?"""
        return any(replica.up for replica, _ in self._lines.values())

    async def call(self, payload: bytes, deadline: float, traceparent: str = "") -> bytes:
        """Send one item and wait for its result until `deadline` (Unix seconds).

        Raises ProblemError: `unavailable` without a connection or answer in time, else the server's error.
        """
        up = (replica for replica, _ in self._lines.values() if replica.up)
        replica = min(up, key=lambda each: len(each.waiting), default=None)
        if replica is None:
            raise _unavailable("no replica is connected")
        call_id = next(self._ids)
        future = replica.call(
            Item(call_id=call_id, deadline_ms=int(deadline * 1000), traceparent=traceparent, payload=payload)
        )
        timer = self._loop.call_later(remaining(deadline, now()), replica.expire, call_id)
        try:
            return await future
        finally:
            timer.cancel()
            replica.waiting.pop(call_id, None)
