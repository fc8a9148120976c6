"""What the gateway needs from the world."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from millrace.cache.v1.cache_pb2 import LookupReply, LookupRequest, StoreReply, StoreRequest
from millrace.dispatch.v1.dispatch_pb2 import PoolSignal
from millrace.limits.v1.limits_pb2 import CheckReply, CheckRequest
from millrace.router.v1.router_pb2 import AcceptReply, AcceptRequest

# One call each, the last argument is the deadline in Unix seconds. All raise `services.chassis.errors.ProblemError`.
Check: TypeAlias = Callable[[CheckRequest, float], Awaitable[CheckReply]]
Lookup: TypeAlias = Callable[[LookupRequest, float], Awaitable[LookupReply]]
Store: TypeAlias = Callable[[StoreRequest, float], Awaitable[StoreReply]]
Accept: TypeAlias = Callable[[AcceptRequest, float], Awaitable[AcceptReply]]


class Signals(Protocol):
    """Work and positions of the pools, cancels told to their owners: `services.pools.signals_listener.SignalsListener`."""

    signals: dict[str, PoolSignal]

    def age_s(self, pool: str) -> float:
        """Seconds since the pool's owner was last heard."""
        ...

    def cancel(self, pool: str, task: str) -> None:
        """Tell the owner that the task's cancel was written to Redis."""
        ...

    def watch(self, pool: str, task: str) -> None:
        """Ask for the statuses of a task whose record names another gateway."""
        ...

    def unwatch(self, pool: str, task: str) -> None:
        """One who asked no longer does; the others are still told."""
        ...


class Presence(Protocol):
    """Who else is there. Both raise RedisAwayError."""

    async def readers(self, task: str) -> int:
        """Gateways in which a reader attached to the task."""
        ...

    async def gateways(self) -> int:
        """Say that this gateway lives; how many do, this one included?"""
        ...


class TicketStore(Protocol):
    """Single-use tickets of browsers. Both raise RedisAwayError."""

    async def put(self, digest: bytes, owner: bytes, keep_s: float) -> None:
        """Keep the owner of the ticket with this SHA-256."""
        ...

    async def take(self, digest: bytes) -> bytes | None:
        """Its owner, once."""
        ...
