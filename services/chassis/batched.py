"""Many calls in one stream message.

A unary gRPC call costs 200-300 us of CPU in Python, an item of a batch about 10. The first call after a pause goes at once;
those that come within `GAP_S` of a message share the next one, and so everything behind it: one pipeline, one produce, one
reply. One stream to each address and the least outstanding first, because one stream would stick to one replica.

A servicer's method is an async generator (grpc.aio runs anything else in a thread):

    async def Accept(self, requests, context):
        async for reply in serve_batched(requests, self._accept):
            yield reply
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc.aio

from millrace.batch.v1.batch_pb2 import Item, Reply, Request, Result
from services.chassis.backoff import backoff
from services.chassis.clock import now
from services.chassis.deadline import remaining
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.grpc_channel import channel
from services.chassis.pace import Pace

log = logging.getLogger(__name__)

Method: TypeAlias = Callable[[grpc.aio.Channel], Any]
MAX_ITEMS = 512
GAP_S = 0.010


def _unavailable(message: str) -> ProblemError:
    return ProblemError(Problem(ErrorCode.UNAVAILABLE, message))


class _Stream:
    """One stream to one address; it comes back by itself."""

    def __init__(self, address: str, method: Method) -> None:
        self.address = address
        self._method = method
        self._queue: list[Item] = []
        self._pace = Pace(lambda: GAP_S)
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.up = False

    def call(self, item: Item) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.waiting[item.call_id] = future
        self._queue.append(item)
        self._pace.wake()
        return future

    async def run(self) -> None:
        delays = backoff(0.05, 0.5)
        async with channel(self.address) as ch:
            while True:
                try:
                    await asyncio.wait_for(ch.channel_ready(), 5.0)
                    stream = self._method(ch)()
                    writer = asyncio.create_task(self._write(stream), name=f"batched writer {self.address}")
                    self.up = True
                    delays = backoff(0.05, 0.5)
                    try:
                        async for reply in stream:
                            self._take(reply)
                    finally:
                        self.up = False
                        writer.cancel()
                        await asyncio.gather(writer, return_exceptions=True)
                        stream.cancel()
                except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError) as reason:
                    log.debug("batched stream to %s: %s", self.address, reason)
                finally:
                    self._fail(f"the connection to {self.address} was lost")
                await asyncio.sleep(next(delays))

    async def _write(self, stream: Any) -> None:
        while True:
            await self._pace.wait()
            while self._queue:
                items, self._queue = self._queue[:MAX_ITEMS], self._queue[MAX_ITEMS:]
                await stream.write(Request(items=items))

    def _take(self, reply: Reply) -> None:
        for result in reply.results:
            future = self.waiting.pop(result.call_id, None)
            if future is None or future.done():
                continue
            if result.error_code:
                future.set_exception(ProblemError(Problem(ErrorCode(result.error_code), result.error_message)))
            else:
                future.set_result(result.result)

    def _fail(self, message: str) -> None:
        self._queue.clear()
        waiting, self.waiting = self.waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(_unavailable(message))


class BatchedClient:
    """Calls to the replicas of one service. Use as an async context manager; entering waits for no server.

    `method` picks the RPC of a channel: `lambda ch: RouterStub(ch).Accept`.
    """

    def __init__(self, addresses: Sequence[str], method: Method) -> None:
        self._addresses, self._method = tuple(addresses), method
        self._streams: list[_Stream] = []
        self._ids = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._streams = [_Stream(address, self._method) for address in self._addresses]
        self._tasks = [asyncio.create_task(s.run(), name=f"batched stream {s.address}") for s in self._streams]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def ready(self) -> bool:
        """Is any replica connected?"""
        return any(s.up for s in self._streams)

    async def call(self, payload: bytes, deadline: float, traceparent: str = "") -> bytes:
        """Send one item and wait for its result until `deadline` (Unix seconds).

        Raises ProblemError: `unavailable` without a connection or answer in time, else the server's error.
        """
        stream = min((s for s in self._streams if s.up), key=lambda s: len(s.waiting), default=None)
        if stream is None:
            raise _unavailable("no replica is connected")
        item = Item(call_id=next(self._ids), deadline_ms=int(deadline * 1000), traceparent=traceparent, payload=payload)
        future = stream.call(item)
        timer = asyncio.get_running_loop().call_later(remaining(deadline, now()), _expire, future, stream.address)
        try:
            return await future
        finally:
            timer.cancel()
            stream.waiting.pop(item.call_id, None)


def _expire(future: asyncio.Future[bytes], address: str) -> None:
    if not future.done():
        future.set_exception(_unavailable(f"{address} did not answer in time"))


def _failure(call_id: int, error: BaseException) -> Result:
    if isinstance(error, ProblemError):
        return Result(call_id=call_id, error_code=error.problem.code, error_message=error.problem.message)
    log.error("a batched call failed", exc_info=error)
    return Result(
        call_id=call_id, error_code=ErrorCode.INTERNAL, error_message=f"{type(error).__name__} in the service"
    )


async def serve_batched(
    requests: AsyncIterator[Request], handle: Callable[[Item], Awaitable[bytes]]
) -> AsyncIterator[Reply]:
    """Answer each item by its own task, in the order they finish; what finishes together is sent together."""
    outbox = _Outbox()

    async def answer(item: Item) -> None:
        try:
            outbox.put(Result(call_id=item.call_id, result=await handle(item)))
        except Exception as error:  # noqa: BLE001 - every failure becomes an answer
            outbox.put(_failure(item.call_id, error))

    async def read(running: set[asyncio.Task[None]]) -> None:
        async for request in requests:
            for item in request.items:
                task = asyncio.create_task(answer(item))
                running.add(task)
                task.add_done_callback(running.discard)

    async for reply in outbox.replies(read):
        yield reply


async def serve_batches(
    requests: AsyncIterator[Request], handle: Callable[[Sequence[Item]], Awaitable[Sequence[bytes | Problem]]]
) -> AsyncIterator[Reply]:
    """Answer each message as a whole, one reply per message, in order."""
    async for request in requests:
        try:
            answers = await handle(request.items)
        except Exception as error:  # noqa: BLE001 - every failure becomes an answer
            yield Reply(results=[_failure(item.call_id, error) for item in request.items])
            continue
        yield Reply(
            results=[
                Result(call_id=item.call_id, error_code=answer.code, error_message=answer.message)
                if isinstance(answer, Problem)
                else Result(call_id=item.call_id, result=answer)
                for item, answer in zip(request.items, answers, strict=True)
            ]
        )


class _Outbox:
    """Results that wait to be sent."""

    def __init__(self) -> None:
        self._results: list[Result] = []
        self._wake = asyncio.Event()

    def put(self, result: Result) -> None:
        self._results.append(result)
        self._wake.set()

    async def replies(self, read: Callable[[set[asyncio.Task[None]]], Awaitable[None]]) -> AsyncIterator[Reply]:
        running: set[asyncio.Task[None]] = set()
        reader = asyncio.ensure_future(read(running))
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            while not (reader.done() and not running and not self._results):
                await self._wake.wait()
                self._wake.clear()
                if self._results:
                    results, self._results = self._results, []
                    yield Reply(results=results)
                if reader.done() and running:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    self._wake.set()
        finally:
            reader.cancel()
            for task in running:
                task.cancel()
            await asyncio.gather(reader, *running, return_exceptions=True)
