"""Many calls in one message, the answering side of `batched`.

    async with batched_server(host, port, {method(router_pb2, "Router", "Accept"): each(accept)}) as server:
        ...

Items of one message are answered alone (`each`) or together (`whole`); answers that are ready in one turn of the loop share a
message.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from millrace.batch.v1.batch_pb2 import Item, Reply, Request, Result
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.framing import FramedConnection

log = logging.getLogger(__name__)

Answer: TypeAlias = Callable[[Iterable[Result]], None]
Handler: TypeAlias = Callable[[Sequence[Item], Answer], Iterable[Coroutine[Any, Any, None]]]


def each(handle: Callable[[Item], Awaitable[bytes]]) -> Handler:
    """Answer each item by its own task, in the order they finish."""

    async def one(item: Item, answer: Answer) -> None:
        try:
            answer([Result(call_id=item.call_id, result=await handle(item))])
        except Exception as error:  # noqa: BLE001 - every failure becomes an answer
            answer([_failure(item.call_id, error)])

    return lambda items, answer: [one(item, answer) for item in items]


def whole(handle: Callable[[Sequence[Item]], Awaitable[Sequence[bytes | Problem]]]) -> Handler:
    """Answer each message as a whole; `handle` gives one answer per item, in order."""

    async def all_of(items: Sequence[Item], answer: Answer) -> None:
        try:
            answers = await handle(items)
        except Exception as error:  # noqa: BLE001 - every failure becomes an answer
            answer([_failure(item.call_id, error) for item in items])
            return
        answer(
            Result(call_id=item.call_id, error_code=said.code, error_message=said.message)
            if isinstance(said, Problem)
            else Result(call_id=item.call_id, result=said)
            for item, said in zip(items, answers, strict=True)
        )

    return lambda items, answer: [all_of(items, answer)]


def _failure(call_id: int, error: BaseException) -> Result:
    if isinstance(error, ProblemError):
        return Result(call_id=call_id, error_code=error.problem.code, error_message=error.problem.message)
    log.error("a batched call failed", exc_info=error)
    return Result(
        call_id=call_id, error_code=ErrorCode.INTERNAL, error_message=f"{type(error).__name__} in the service"
    )


class _Served:
    """One caller. What it asked is dropped when it goes."""

    def __init__(self, methods: Mapping[str, Handler], gone: Callable[["_Served"], None]) -> None:
        self._methods = methods
        self._gone = gone
        self._handler: Handler | None = None
        self._results: list[Result] = []
        self.running: set[asyncio.Task[None]] = set()
        self.connection = FramedConnection(self._take, self._on_lost)

    def _take(self, frame: bytes) -> None:
        if self._handler is None:
            self._handler = self._methods.get(frame.decode(errors="replace"))
            if self._handler is None:
                log.warning("a caller wants %r, which is not served here", frame[:100])
                self.connection.abort()
                return
            self.connection.send(b"")
            return
        try:
            request = Request.FromString(frame)
        except DecodeError:
            log.warning("a caller sends what is no Request and is cut off")
            self.connection.abort()
            return
        for work in self._handler(request.items, self._answer):
            task = asyncio.create_task(work)
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    def _answer(self, results: Iterable[Result]) -> None:
        if not self._results:
            asyncio.get_running_loop().call_soon(self._flush)
        self._results += results

    def _flush(self) -> None:
        results, self._results = self._results, []
        self.connection.send(Reply(results=results).SerializeToString())

    def _on_lost(self) -> None:
        for task in self.running:
            task.cancel()
        self._gone(self)


@dataclass(frozen=True, slots=True)
class BatchedServer:
    """A running server."""

    port: int


@asynccontextmanager
async def batched_server(
    host: str, port: int, methods: Mapping[str, Handler], *, grace_s: float = 2.0
) -> AsyncIterator[BatchedServer]:
    """Serve `methods`, by full name, until the context ends; then answer what was asked, for at most `grace_s`.

    Raises OSError when the port is taken. Port 0 takes a free one.
    """
    callers: set[_Served] = set()

    def accepted() -> FramedConnection:
        caller = _Served(methods, callers.discard)
        callers.add(caller)
        return caller.connection

    listener = await asyncio.get_running_loop().create_server(accepted, host, port)
    try:
        yield BatchedServer(listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        if asked := [task for caller in callers for task in caller.running]:
            await asyncio.wait(asked, timeout=grace_s)
        await asyncio.sleep(0)  # answers of this turn are on their way
        for caller in tuple(callers):
            caller.connection.close()
        await listener.wait_closed()
