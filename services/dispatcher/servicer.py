"""How a dispatcher is spoken to: workers attach, gateways and routers listen.

Both are streams that live as long as both ends. Only the owner of a pool serves them; anybody else says who owns it.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

from millrace.dispatch.v1 import dispatch_pb2
from millrace.dispatch.v1.dispatch_pb2 import (
    DispatcherEvent,
    DispatcherMessage,
    Hello,
    SignalsRequest,
    SignalsUpdate,
    WorkerMessage,
)
from services.chassis.framed_server import Called, refuse
from services.chassis.framing import FramedConnection, method
from services.dispatcher.outbox import Outbox
from services.dispatcher.pool_actor import PoolActor
from services.dispatcher.pool_owner import PoolOwner
from services.dispatcher.signal_board import SignalStream
from services.dispatcher.worker_streams import WorkerStream

GATHER_S: Final = 0.010  # between two messages to a worker: a message costs far more than an event

Actors = Mapping[str, PoolActor]


def dispatch_methods(actors: Actors) -> Mapping[str, Called]:
    """What a dispatcher of these pools serves."""
    return {
        method(dispatch_pb2, "Dispatch", "Attach"): partial(_Attached, actors),
        method(dispatch_pb2, "Dispatch", "Signals"): partial(_Listener, actors),
    }


class _Attached:
    """A worker's stream: Hello first, then its events; assignments and acknowledgments back."""

    def __init__(self, actors: Actors, connection: FramedConnection) -> None:
        self._actors = actors
        self._connection = connection
        self._opened: tuple[PoolOwner, WorkerStream] | None = None

    def take(self, message: bytes) -> None:
        events = list(WorkerMessage.FromString(message).events)
        if self._opened is None:
            if not events or events[0].WhichOneof("event") != "hello":
                refuse(self._connection, "the first event of a stream is Hello")
                return
            self._opened = self._open(events.pop(0).hello)
        if self._opened:
            owner, stream = self._opened
            owner.workers.take(stream, events)

    def _open(self, hello: Hello) -> tuple[PoolOwner, WorkerStream] | None:
        owner = _owner(self._actors, hello.pool)
        if isinstance(owner, str):
            refuse(self._connection, owner)
            return None

        def pack(events: list[DispatcherEvent]) -> tuple[bytes]:
            return (DispatcherMessage(epoch=owner.epoch, events=events).SerializeToString(),)

        self._connection.send(b"")
        return owner, owner.attach(hello, Outbox(self._connection, pack, GATHER_S))

    def lost(self) -> None:
        if self._opened:
            owner, stream = self._opened
            owner.workers.close(stream)

    async def leave(self) -> None:
        """The pools' actors have closed what was open."""


class _Listener:
    """A listener's stream: who it is first, then cancels and watches; the pool's signal and statuses back."""

    def __init__(self, actors: Actors, connection: FramedConnection) -> None:
        self._actors = actors
        self._connection = connection
        self._opened: tuple[PoolOwner, SignalStream] | None = None

    def take(self, message: bytes) -> None:
        request = SignalsRequest.FromString(message)
        if self._opened:
            owner, stream = self._opened
            owner.signals.take(stream, request)
        else:
            self._opened = self._open(request)

    def _open(self, first: SignalsRequest) -> tuple[PoolOwner, SignalStream] | None:
        owner = _owner(self._actors, first.pool)
        if isinstance(owner, str):
            refuse(self._connection, owner)
            return None

        def pack(updates: list[SignalsUpdate]) -> list[bytes]:
            return [update.SerializeToString() for update in updates]

        self._connection.send(b"")
        return owner, owner.signals.open(first, Outbox(self._connection, pack))

    def lost(self) -> None:
        if self._opened:
            owner, stream = self._opened
            owner.signals.close(stream)

    async def leave(self) -> None:
        """The pools' actors have closed what was open."""


def _owner(actors: Actors, pool: str) -> PoolOwner | str:
    """The owner, or why there is none here."""
    actor = actors.get(pool)
    if actor is None:
        return f"there is no pool {pool!r}"
    if actor.owner is None or not actor.owner.holds():
        where = f"owned by {actor.elsewhere.address}" if actor.elsewhere else "between two owners"
        return f"pool {pool} is {where}"
    return actor.owner
