"""The streams of a pool's workers: their events to the scheduler, the owner's decisions to them."""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from millrace.dispatch.v1.dispatch_pb2 import (
    Assign,
    Cancel,
    DispatcherEvent,
    FinishedAck,
    Hello,
    Welcome,
    WorkerEvent,
)
from services.chassis.clock import monotonic, now
from services.dispatcher.core import decisions as d
from services.dispatcher.core.scheduler import Scheduler
from services.dispatcher.outbox import Outbox

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerStream:
    """One stream; `number` tells it from the worker's earlier ones."""

    worker: str
    number: int
    outbox: Outbox[DispatcherEvent]


class WorkerStreams:
    """Who is attached. `act` carries decisions out; `credited` is told that somebody may take more."""

    def __init__(
        self,
        scheduler: Scheduler,
        horizon_s: float,
        act: Callable[[Sequence[d.Decision]], None],
        credited: Callable[[], None],
    ) -> None:
        self._scheduler = scheduler
        self._horizon_s = horizon_s
        self._act = act
        self._credited = credited
        self._numbers = itertools.count(1)
        self._streams: dict[str, WorkerStream] = {}

    def open(self, hello: Hello, outbox: Outbox[DispatcherEvent]) -> WorkerStream:
        """A worker attached."""
        stream = WorkerStream(hello.worker, next(self._numbers), outbox)
        if before := self._streams.get(hello.worker):
            before.outbox.close()
        self._streams[hello.worker] = stream
        stream.outbox.put(DispatcherEvent(welcome=Welcome(commit_horizon_s=self._horizon_s)))
        self._act(self._scheduler.hello(hello, stream.number, monotonic()))
        log.info(
            "worker %s attached: %d slots, %d running, %d ended",
            hello.worker, hello.slots, len(hello.running), len(hello.finished),
        )  # fmt: skip
        return stream

    def close(self, stream: WorkerStream) -> None:
        """The stream broke."""
        stream.outbox.close()
        if self._streams.get(stream.worker) is stream:
            del self._streams[stream.worker]
            self._scheduler.roster.broke(stream.worker, stream.number, monotonic())

    def close_all(self) -> None:
        """The pool is not owned here any more."""
        for stream in self._streams.values():
            stream.outbox.close()

    def take(self, stream: WorkerStream, events: Sequence[WorkerEvent]) -> None:
        """What a worker says, in order."""
        scheduler, at = self._scheduler, monotonic()
        worker = scheduler.roster.get(stream.worker)
        if worker is None or worker.stream != stream.number:
            stream.outbox.close()  # it was given up; a new Hello makes it known again
            return
        worker.heard_at = at
        decided: list[d.Decision] = []
        credited = False
        for event in events:
            match event.WhichOneof("event"):
                case "credit":
                    scheduler.credit(worker, event.credit.slots)
                    credited = True
                case "started":
                    started = event.started
                    scheduler.started(started.task, started.attempt, started.prompt_tokens, now())
                case "progress":
                    progress = event.progress
                    scheduler.progress(progress.task, progress.attempt, progress.completion_tokens)
                    if progress.cancel_wished:
                        decided += scheduler.cancel(progress.task)
                case "finished":
                    decided += scheduler.finished(worker, event.finished, at)
                case "fenced":
                    decided += scheduler.fenced(worker, event.fenced.task, event.fenced.attempt)
                case "need":
                    decided += scheduler.need(worker, event.need.task, event.need.attempt, at)
                case _:
                    pass  # a heartbeat: that it was heard is all it says
        if decided:
            self._act(decided)
        if credited:
            self._credited()

    def assign(self, decision: d.Assign) -> None:
        """Hand a task to its worker."""
        if stream := self._streams.get(decision.worker):
            state = decision.state
            assign = Assign(
                task=state.task,
                attempt=decision.attempt,
                previous_attempt=decision.previous,
                attempts=state.history.begun,
                run_id=self._scheduler.run_id,
            )
            if state.first_started:
                assign.first_started.CopyFrom(_timestamp(state.first_started))
            stream.outbox.put(DispatcherEvent(assign=assign))

    def acknowledge(self, decision: d.Acknowledge) -> None:
        """Let a worker forget an end."""
        if stream := self._streams.get(decision.worker):
            ack = FinishedAck(task=decision.task, attempt=decision.attempt)
            stream.outbox.put(DispatcherEvent(finished_ack=ack))

    def stop(self, decision: d.Stop) -> None:
        """Tell a worker to end a task as cancelled."""
        if stream := self._streams.get(decision.worker):
            stream.outbox.put(DispatcherEvent(cancel=Cancel(task=decision.task, attempt=decision.attempt)))


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(round(seconds * 1e9))
    return stamp
