"""How a dispatcher is spoken to: workers attach, gateways and routers listen.

Both are streams that live as long as both ends. Only the owner of a pool serves them; anybody else says who owns it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, TypeAlias, TypeVar

import grpc.aio

from millrace.dispatch.v1.dispatch_pb2 import DispatcherMessage, SignalsRequest, SignalsUpdate, WorkerMessage
from millrace.dispatch.v1.dispatch_pb2_grpc import DispatchServicer
from services.dispatcher.outbox import Outbox
from services.dispatcher.pool_actor import PoolActor
from services.dispatcher.pool_owner import PoolOwner

log = logging.getLogger(__name__)

M = TypeVar("M")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

FIRST_MESSAGE_S: Final = 5.0
GATHER_S: Final = 0.010  # between two messages to a worker: a message costs far more than an event


class Dispatch(DispatchServicer):
    """Serves the pools in `actors`."""

    def __init__(self, actors: dict[str, PoolActor]) -> None:
        self._actors = actors

    async def Attach(  # noqa: N802 - the method's name in the contract
        self, requests: AsyncIterator[WorkerMessage], context: Context
    ) -> AsyncIterator[DispatcherMessage]:
        """A worker's stream: Hello first, then its events; assignments and acknowledgments back."""
        first = await _first(requests, context)
        events = list(first.events)
        if not events or events[0].WhichOneof("event") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first event of a stream is Hello")
        hello = events.pop(0).hello
        owner = await self._owner(hello.pool, context)
        stream = owner.attach(hello)
        owner.workers.take(stream, events)

        async def read() -> None:
            async for message in requests:
                owner.workers.take(stream, message.events)

        reader = _reader(read(), stream.outbox)
        try:
            while (gathered := await stream.outbox.gather()) is not None:
                yield DispatcherMessage(epoch=owner.epoch, events=gathered)
                await asyncio.sleep(GATHER_S)
        finally:
            reader.cancel()
            owner.workers.close(stream)
        await self._goodbye(hello.pool, owner, context)

    async def Signals(  # noqa: N802 - the method's name in the contract
        self, requests: AsyncIterator[SignalsRequest], context: Context
    ) -> AsyncIterator[SignalsUpdate]:
        """A listener's stream: who it is first, then cancels and watches; the pool's signal and statuses back."""
        first = await _first(requests, context)
        owner = await self._owner(first.pool, context)
        stream = owner.signals.open(first)

        async def read() -> None:
            async for request in requests:
                owner.signals.take(stream, request)

        reader = _reader(read(), stream.outbox)
        try:
            while (gathered := await stream.outbox.gather()) is not None:
                for update in gathered:
                    yield update
        finally:
            reader.cancel()
            owner.signals.close(stream)
        await self._goodbye(first.pool, owner, context)

    async def _owner(self, pool: str, context: Context) -> PoolOwner:
        actor = self._actors.get(pool)
        if actor is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no pool {pool!r}")
        assert actor
        if actor.owner is None or not actor.owner.holds():
            where = f"owned by {actor.elsewhere.address}" if actor.elsewhere else "between two owners"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"pool {pool} is {where}")
        assert actor.owner
        return actor.owner

    async def _goodbye(self, pool: str, owner: PoolOwner, context: Context) -> None:
        """Say why a stream ends, if it was not its client who ended it."""
        actor = self._actors.get(pool)
        if actor is None or actor.owner is not owner:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"pool {pool} is not owned here any more")


async def _first(requests: AsyncIterator[M], context: Context) -> M:
    try:
        async with asyncio.timeout(FIRST_MESSAGE_S):
            return await anext(requests)
    except (TimeoutError, StopAsyncIteration):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no first message within {FIRST_MESSAGE_S:.0f} s")
        raise


def _reader(read: Coroutine[Any, Any, None], outbox: Outbox[Any]) -> asyncio.Task[None]:
    """Read beside the writing; the stream ends when its client has nothing more to say."""
    reader = asyncio.create_task(read, name="stream reader")

    def ended(task: asyncio.Task[None]) -> None:
        outbox.close()
        if not task.cancelled() and (failure := task.exception()):
            log.error("a stream cannot be read", exc_info=failure)

    reader.add_done_callback(ended)
    return reader
