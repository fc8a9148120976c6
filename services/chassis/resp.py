"""One pipelined Redis connection over hiredis.

A command costs 2-3 us of CPU this way and 30 through a general client (measured), so the token log, the claims and the limiter
use it; control paths may use redis-py. Redis answers in order, so replies are matched by position.

The connection knows the run id of the server it talks to. A server with another run id may have forgotten its newest
writes: a pipe that names the run it writes under is refused with `RunChangedError` instead of being sent to another run.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias, cast
from urllib.parse import unquote, urlsplit

import hiredis

from services.chassis.background import call_off
from services.chassis.backoff import backoff

log = logging.getLogger(__name__)

Arg: TypeAlias = bytes | str | int | float
Command: TypeAlias = tuple[Arg, ...] | bytes  # bytes: packed before by `pack`


class RedisAwayError(ConnectionError):
    """No answer. Whether the commands were carried out is unknown."""


class RunChangedError(ConnectionError):
    """The server has another run id than the caller wrote under; nothing was sent."""


class _Wire(asyncio.Protocol):
    """Replies in, matched to the batches that wait for them."""

    __slots__ = ("_loop", "_on_lost", "_on_push", "_out", "_reader", "transport", "waiting")

    def __init__(self, on_lost: Callable[["_Wire"], None], on_push: Callable[[list[Any]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._out: list[bytes] = []
        self._on_lost = on_lost
        self._on_push = on_push
        self.transport: asyncio.Transport | None = None
        self.waiting: deque[tuple[asyncio.Future[list[Any]], int, list[Any]]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if not self.waiting:  # only a subscription speaks unasked
                self._on_push(reply)
                continue
            future, count, replies = self.waiting[0]
            replies.append(reply)
            if len(replies) == count:
                self.waiting.popleft()
                if not future.done():
                    future.set_result(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        while self.waiting:
            future = self.waiting.popleft()[0]
            if not future.done():
                future.set_exception(RedisAwayError("the connection to Redis was lost"))
        self._on_lost(self)

    def send(self, packed: bytes, count: int) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self.waiting.append((future, count, []))
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        return future

    def _flush(self) -> None:
        """One write for all that one turn of the loop sends: a system call costs more than the commands."""
        packed, self._out = b"".join(self._out), []
        if self.transport and not self.transport.is_closing():
            self.transport.write(packed)


class Resp:
    """A connection that comes back by itself. Use as an async context manager; entering waits for no server.

    Raises RedisAwayError at once while there is no connection: callers decide what waiting is worth. `timeout_s` bounds the
    wait for replies; a server that exceeds it is treated as gone and its connection is cut.

    With `channel` the connection is subscribed whenever it is up, hands what is published to `on_message`, and can be used for
    nothing else.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, channel: str = "") -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 6379
        self._password, self._user = unquote(parts.password or ""), unquote(parts.username or "")
        self._db = int(parts.path.strip("/") or 0)
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None
        self._lost = asyncio.Event()
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._channel = channel
        self.run_id = ""
        self.on_connected: list[Callable[[], None]] = []
        self.on_message: list[Callable[[bytes], None]] = []

    @property
    def connected(self) -> bool:
        """Is there a connection now?"""
        return self._wire is not None

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep_connected(), name=f"redis {self._host}:{self._port}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._keeper:
            await call_off([self._keeper])
        wire, self._wire = self._wire, None
        if wire and wire.transport:
            wire.transport.close()

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Wait for a connection. Raises RedisAwayError after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            raise RedisAwayError(f"no connection to Redis at {self._host}:{self._port} within {timeout_s} s") from None

    async def pipe(self, *commands: Command, run_id: str | None = None) -> list[Any]:
        """Send the commands in one write; one reply each. Error replies come as `hiredis.ReplyError` values, not raised.

        With `run_id`: refuse with RunChangedError if the server is another run. Raises RedisAwayError.
        """
        wire = self._wire
        if wire is None:
            raise RedisAwayError(f"no connection to Redis at {self._host}:{self._port}")
        if run_id is not None and run_id != self.run_id:
            raise RunChangedError(f"Redis run {self.run_id[:8]} is not {run_id[:8]}")
        if not commands:
            return []
        future = wire.send(_pack(commands), len(commands))
        # One timer per pipe, not per command; cheaper than asyncio.timeout around each.
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._too_slow, wire)
        try:
            return await future
        finally:
            timer.cancel()

    async def call(self, *command: Arg, run_id: str | None = None) -> Any:
        """One command; raises hiredis.ReplyError, RedisAwayError, RunChangedError."""
        (reply,) = await self.pipe(command, run_id=run_id)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def _too_slow(self, wire: _Wire) -> None:
        log.warning("Redis at %s:%d did not answer within %.1f s", self._host, self._port, self._timeout_s)
        if wire.transport:
            wire.transport.abort()

    def _on_push(self, push: list[Any]) -> None:
        if push[0] == b"message":
            for callback in self.on_message:
                callback(push[2])

    def _on_lost(self, wire: _Wire) -> None:
        if self._wire is wire:
            self._wire = None
            self._up.clear()
        self._lost.set()

    async def _keep_connected(self) -> None:
        delays = backoff(0.05, 0.5)
        while True:
            try:
                await self._connect()
            except (OSError, hiredis.HiredisError, TimeoutError) as reason:
                log.debug("Redis at %s:%d: %s", self._host, self._port, reason)
                await asyncio.sleep(next(delays))
                continue
            delays = backoff(0.05, 0.5)
            await self._lost.wait()
            log.warning("lost the connection to Redis at %s:%d", self._host, self._port)

    async def _connect(self) -> None:
        self._lost.clear()
        async with asyncio.timeout(self._timeout_s):
            _, wire = await asyncio.get_running_loop().create_connection(
                lambda: _Wire(self._on_lost, self._on_push), self._host, self._port
            )
            greeting: list[Command] = []
            if self._password:
                greeting.append(("AUTH", self._user, self._password) if self._user else ("AUTH", self._password))
            if self._db:
                greeting.append(("SELECT", self._db))
            greeting += [("DBSIZE",), ("INFO", "server")]  # while it loads its file only the first is refused
            try:
                replies = await wire.send(_pack(greeting), len(greeting))
                for reply in replies:
                    if isinstance(reply, hiredis.ReplyError):  # also LOADING, while it reads its file
                        raise reply
                self.run_id = _field(replies[-1], b"run_id:")
                if self._channel:
                    await wire.send(_pack([("SUBSCRIBE", self._channel)]), 1)
            except BaseException:
                if wire.transport:
                    wire.transport.abort()
                raise
        self._wire = wire
        self._up.set()
        for callback in self.on_connected:
            callback()


def pack(*command: Arg) -> bytes:
    """A command as it goes over the wire, for callers that send the same one often."""
    return hiredis.pack_command(command)  # type: ignore[arg-type,no-any-return]  # its stub wants 1-tuples


def _pack(commands: Sequence[Command]) -> bytes:
    return b"".join([command if isinstance(command, bytes) else pack(*command) for command in commands])


def _field(info: bytes, name: bytes) -> str:
    start = info.index(name) + len(name)
    return info[start : info.index(b"\r\n", start)].decode()
