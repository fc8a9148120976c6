"""How a dispatcher is spoken to: workers attach, gateways and routers listen.

Both are streams that live as long as both ends. Only the owner of a pool serves them; anybody else says who owns it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from millrace.dispatch.v1 import dispatch_pb2
from millrace.dispatch.v1.dispatch_pb2 import (
    DispatcherEvent,
    DispatcherMessage,
    Hello,
    SignalsRequest,
    SignalsUpdate,
    WorkerEvent,
    WorkerMessage,
)
from services.chassis.framed_server import Called, refuse
from services.chassis.framing import FramedConnection, method
from services.dispatcher.outbox import Outbox
from services.dispatcher.pool_actor import PoolActor
from services.dispatcher.pool_owner import PoolOwner

GATHER_S: Final = 0.010  # between two messages to a worker: a message costs far more than an event

Actors = Mapping[str, PoolActor]
Said = TypeVar("Said")


def dispatch_methods(actors: Actors) -> Mapping[str, Called]:
    """What a dispatcher of these pools serves."""
    return {
        method(dispatch_pb2, "Dispatch", "Attach"): partial(_Attached, actors),
        method(dispatch_pb2, "Dispatch", "Signals"): partial(_Listener, actors),
    }


class _Stream(Generic[Said]):
    """One peer's stream: in the hands of the pool's owner as soon as the peer has said of which pool, until it is lost."""

    def __init__(self, actors: Actors, connection: FramedConnection) -> None:
        self._actors = actors
        self._connection = connection
        self._give: Callable[[Said], None] | None = None  # to the owner; None: not opened
        self._close: Callable[[], None] = lambda: None

    def _enter(self, pool: str) -> PoolOwner | None:
        """The pool's owner; where there is none, the peer hears why and is cut off."""
        actor = self._actors.get(pool)
        if actor is None:
            refuse(self._connection, f"there is no pool {pool!r}")
            return None
        if actor.owner is None or not actor.owner.holds():
            where = f"owned by {actor.elsewhere.address}" if actor.elsewhere else "between two owners"
            refuse(self._connection, f"pool {pool} is {where}")
            return None
        self._connection.send(b"")
        return actor.owner

    def lost(self) -> None:
        self._close()

    async def leave(self) -> None:
        """The pools' actors have closed what was open."""


class _Attached(_Stream[Sequence[WorkerEvent]]):
    """A worker's stream: Hello first, then its events; assignments and acknowledgments back."""

    def take(self, message: bytes) -> None:
        events = list(WorkerMessage.FromString(message).events)
        if self._give is None:
            if not events or events[0].WhichOneof("event") != "hello":
                refuse(self._connection, "the first event of a stream is Hello")
                return
            self._open(events.pop(0).hello)
        if self._give:
            self._give(events)

    def _open(self, hello: Hello) -> None:
        owner = self._enter(hello.pool)
        if owner is None:
            return

        def pack(events: list[DispatcherEvent]) -> tuple[bytes]:
            return (DispatcherMessage(epoch=owner.epoch, events=events).SerializeToString(),)

        stream = owner.attach(hello, Outbox(self._connection, pack, GATHER_S))
        self._give, self._close = partial(owner.workers.take, stream), partial(owner.workers.close, stream)


class _Listener(_Stream[SignalsRequest]):
    """A listener's stream: who it is first, then cancels and watches; the pool's signal and statuses back."""

    def take(self, message: bytes) -> None:
        request = SignalsRequest.FromString(message)
        if self._give:
            self._give(request)
        elif owner := self._enter(request.pool):
            stream = owner.signals.open(request, Outbox(self._connection, _each))
            self._give, self._close = partial(owner.signals.take, stream), partial(owner.signals.close, stream)


def _each(updates: list[SignalsUpdate]) -> list[bytes]:
    return [update.SerializeToString() for update in updates]
