"""The streams of those who listen to a pool: its signal ten times a second while it changes, statuses at most once a second."""

import itertools
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from millrace.dispatch.v1.dispatch_pb2 import PoolSignal, SignalsRequest, SignalsUpdate, TaskStatus
from services.dispatcher.core.positions import RUNNING, Standing, standing
from services.dispatcher.core.scheduler import Scheduler
from services.dispatcher.core.task_state import Stage, TaskState
from services.dispatcher.outbox import Outbox

SLICES: Final = 10  # of the watched tasks, one looked at per tick
HEARTBEAT_TICKS: Final = 5  # a listener hears something twice a second

_OVER: Final = (Stage.ENDING, Stage.ENDED)


@dataclass(slots=True, eq=False)
class SignalStream:
    """One listener. A gateway says where its frames server is; its tasks' records name that address."""

    address: str
    boot: int
    outbox: Outbox[SignalsUpdate]
    watched: set[str] = field(default_factory=set)


class SignalBoard:
    """Who listens to one pool. `cancel` is told of tasks whose cancel was written to Redis."""

    def __init__(self, scheduler: Scheduler, epoch: int, cancel: Callable[[str], None]) -> None:
        self._scheduler = scheduler
        self._epoch = epoch
        self._cancel = cancel
        self._streams: dict[SignalStream, None] = {}
        self._gateways: dict[tuple[str, int], SignalStream] = {}
        self._watchers: dict[str, set[SignalStream]] = {}
        self._slices: list[dict[str, Standing | None]] = [{} for _ in range(SLICES)]  # task to what was shown
        self._ticks = itertools.count()
        self._signal: PoolSignal | None = None

    def open(self, first: SignalsRequest, outbox: Outbox[SignalsUpdate]) -> SignalStream:
        """A listener came; it hears the present signal at once."""
        stream = SignalStream(first.address, first.boot, outbox)
        self._streams[stream] = None
        if first.address:
            self._gateways[first.address, first.boot] = stream
        stream.outbox.put(SignalsUpdate(epoch=self._epoch, signal=self._signal))
        self.take(stream, first)
        return stream

    def close(self, stream: SignalStream) -> None:
        """The listener went."""
        stream.outbox.close()
        self._streams.pop(stream, None)
        if self._gateways.get((stream.address, stream.boot)) is stream:
            del self._gateways[stream.address, stream.boot]
        for task in tuple(stream.watched):
            self._unwatch(stream, task)

    def close_all(self) -> None:
        """The pool is not owned here any more."""
        for stream in self._streams:
            stream.outbox.close()

    def take(self, stream: SignalStream, request: SignalsRequest) -> None:
        """Cancels and wishes of a listener."""
        for task in request.watches:
            stream.watched.add(task)
            self._watchers.setdefault(task, set()).add(stream)
            self._slice(task)[task] = None
        for task in request.unwatches:
            self._unwatch(stream, task)
        for task in request.cancels:
            self._cancel(task)

    def entered(self, state: TaskState) -> None:
        """A task came; the gateway its record names, if it listens, is told how it stands."""
        if state.id in self._watchers or (state.task.HasField("route") and self._reader(state)):
            self._slice(state.id)[state.id] = None

    def tick(self, signal: PoolSignal) -> None:
        """Ten times a second: send what changed."""
        tick = next(self._ticks)
        if signal != self._signal:
            self._signal = signal
            for stream in self._streams:
                stream.outbox.put(SignalsUpdate(epoch=self._epoch, signal=signal))
        elif tick % HEARTBEAT_TICKS == 0:
            for stream in self._streams:
                stream.outbox.put(SignalsUpdate(epoch=self._epoch))
        self._tell(self._slices[tick % SLICES])

    def _tell(self, shown: dict[str, Standing | None]) -> None:
        updates: dict[SignalStream, SignalsUpdate] = {}
        for task, before in tuple(shown.items()):
            state = self._scheduler.table.get(task)
            if state is None or state.stage in _OVER:
                if task not in self._watchers or state:
                    del shown[task]
                continue
            new = standing(self._scheduler, state)
            if new is None or not new.differs(before):
                continue
            shown[task] = new
            if before is None and new.state == RUNNING and task not in self._watchers:
                continue  # nobody saw it wait, and its text is on the way
            status = TaskStatus(task=task, state=new.state, position=new.position, eta_s=new.eta_s)
            for stream in self._readers(state):
                updates.setdefault(stream, SignalsUpdate(epoch=self._epoch)).statuses.append(status)
        for stream, update in updates.items():
            stream.outbox.put(update)

    def _readers(self, state: TaskState) -> set[SignalStream]:
        readers = set(self._watchers.get(state.id, ()))
        if own := self._reader(state):
            readers.add(own)
        return readers

    def _reader(self, state: TaskState) -> SignalStream | None:
        route = state.task.route
        return self._gateways.get((route.address, route.boot))

    def _unwatch(self, stream: SignalStream, task: str) -> None:
        stream.watched.discard(task)
        watchers = self._watchers.get(task, set())
        watchers.discard(stream)
        if not watchers:
            self._watchers.pop(task, None)

    def _slice(self, task: str) -> dict[str, Standing | None]:
        return self._slices[zlib.crc32(task.encode()) % SLICES]
