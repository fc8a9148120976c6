"""Many calls in one message, the answering side of `batched`.

    async with framed_server(host, port, {method(router_pb2, "Router", "Accept"): each(accept)}) as server:
        ...

Items of one message are answered alone (`each`) or together (`whole`); answers that are ready in one turn of the loop share a
message.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from millrace.batch.v1.batch_pb2 import Item, Reply, Request, Result
from services.chassis.background import Background
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.framed_server import Called
from services.chassis.framing import FramedConnection
from services.chassis.gather import Gather

log = logging.getLogger(__name__)

Answer: TypeAlias = Callable[[Iterable[Result]], None]
Handler: TypeAlias = Callable[[Sequence[Item], Answer], Iterable[Coroutine[Any, Any, None]]]
T = TypeVar("T")


def each(handle: Callable[[Item], Awaitable[bytes]]) -> Called:
    """Answer each item by its own task, in the order they finish."""

    async def one(item: Item, answer: Answer) -> None:
        try:
            answer([Result(call_id=item.call_id, result=await handle(item))])
        except Exception as error:  # noqa: BLE001 - every failure becomes an answer
            answer([_failure(item.call_id, error)])

    return partial(_BatchedCaller, lambda items, answer: [one(item, answer) for item in items])


def whole(handle: Callable[[Sequence[Item]], Awaitable[Sequence[bytes | Problem]]]) -> Called:
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

    return partial(_BatchedCaller, lambda items, answer: [all_of(items, answer)])


def in_order(asked: Iterable[T | Problem], answers: Iterable[bytes | Problem]) -> list[bytes | Problem]:
    """One answer per item, for `whole`: its own problem where it asked nothing valid, else the next of the answers."""
    rest = iter(answers)
    return [item if isinstance(item, Problem) else next(rest) for item in asked]


def _failure(call_id: int, error: BaseException) -> Result:
    if isinstance(error, ProblemError):
        return Result(call_id=call_id, error_code=error.problem.code, error_message=error.problem.message)
    log.error("a batched call failed", exc_info=error)
    return Result(
        call_id=call_id, error_code=ErrorCode.INTERNAL, error_message=f"{type(error).__name__} in the service"
    )


class _BatchedCaller:
    """One caller. What it asked is dropped when it goes."""

    def __init__(self, handler: Handler, connection: FramedConnection) -> None:
        self._handler = handler
        self._results: Gather[Result] = Gather(
            lambda results: connection.send(Reply(results=results).SerializeToString())
        )
        self._running = Background()
        connection.send(b"")

    def take(self, message: bytes) -> None:
        for work in self._handler(Request.FromString(message).items, lambda results: self._results.put(*results)):
            self._running.spawn(work)

    def lost(self) -> None:
        self._running.cancel()

    async def leave(self) -> None:
        await self._running.over()
