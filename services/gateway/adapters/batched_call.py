"""Limiter, cache and router behind batched streams: one coroutine function per RPC."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from services.chassis.batched import BatchedClient

Reply = TypeVar("Reply", bound=Message)


def batched_call(client: BatchedClient, reply: type[Reply]) -> Callable[[Message, float], Awaitable[Reply]]:
    """`call(request, deadline) -> reply`, deadline in Unix seconds. Raises ProblemError as the client does."""

    async def call(request: Message, deadline: float) -> Reply:
        return reply.FromString(await client.call(request.SerializeToString(), deadline))

    return call
