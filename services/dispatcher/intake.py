"""From a record to a task that waits for its turn.

What is known of a task beside its record is read for a whole batch in one pipeline: has it ended, and, for records that lay in
the lanes before this ownership, has its log begun?
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from millrace.task.v1.task_pb2 import OUTCOME_KIND_UNSPECIFIED, Task
from services.chassis.clock import monotonic, now
from services.chassis.metrics import dispatcher_records
from services.dispatcher.core.decisions import Decision
from services.dispatcher.core.fair_queue import token_cost
from services.dispatcher.core.read_ahead import ReadAhead
from services.dispatcher.core.task_state import Partition, Place, TaskState, Trace
from services.dispatcher.ownership import Ownership, patiently
from services.dispatcher.ports import Record
from services.tasklog.core.entries import Entry, Header, Terminal

log = logging.getLogger(__name__)

# Between two batches: a batch costs far more than a record. The first after a pause never waits.
GATHER_S: Final = 0.020
PLENTY: Final = 100


class Intake:
    """Reads the lanes of one ownership. `act` carries decisions out; `entered` is told of each new task."""

    def __init__(
        self,
        own: Ownership,
        read_ahead: ReadAhead,
        expect_s: float,
        act: Callable[[Sequence[Decision]], None],
        entered: Callable[[TaskState], None],
    ) -> None:
        self._own = own
        self._read_ahead = read_ahead
        self._act = act
        self._entered = entered
        self._expect_until = monotonic() + expect_s
        self._ends: dict[Partition, int] = {}  # where each partition's log ended when this ownership began
        self._behind = True
        self._count_tasks = dispatcher_records.labels(own.pool, "task")
        self._count_repeated = dispatcher_records.labels(own.pool, "repeated")

    def begin(self, ends: dict[Partition, int]) -> None:
        """Know how far the records of earlier owners reach."""
        self._ends = ends
        self._look_whether_caught_up()

    async def run(self) -> None:
        """Read until cancelled. Raises KafkaAwayError."""
        lanes = self._own.world.lanes
        while True:
            if records := await lanes.read():
                await self._take(records)
                if self._behind:
                    self._look_whether_caught_up()
                await asyncio.sleep(0.0 if len(records) >= PLENTY else GATHER_S)
            paused, resumed = self._read_ahead.changes(self._own.offsets)
            if paused:
                lanes.pause(paused)
            if resumed:
                lanes.resume(resumed)

    async def _take(self, records: Sequence[Record]) -> None:
        own = self._own
        fresh: list[tuple[Task, Record]] = []
        for record in records:
            partition, offset = record.place
            offsets = own.offsets[partition]
            offsets.read(offset)
            if offsets.finished(offset):
                continue
            try:
                task = Task.FromString(record.value)
            except DecodeError:
                log.error("the record at %s is no task and is passed over", record.place)  # noqa: TRY400
                offsets.finish(offset)
                continue
            fresh.append((task, record))
        unknown = [(task, record) for task, record in fresh if not self._repeated(task, record.place)]
        if not unknown:
            return
        controls = await patiently(
            "reading claims", lambda: own.world.control.get_many([task.id for task, _ in unknown])
        )
        ended = {
            task.id
            for (task, _), control in zip(unknown, controls, strict=True)
            if control and control.state == "ended"
        }
        begun = {task.id for task, r in unknown if task.id in ended or r.place.offset < self._ends[r.place.partition]}
        logs = await patiently("reading logs", lambda: self._read_logs(begun)) if begun else {}
        decisions: list[Decision] = []
        for task, record in unknown:
            if self._repeated(task, record.place):  # twice in one batch
                continue
            state = self._state(task, record)
            entries = logs.get(task.id, [])
            decisions += self._ended(state, entries) if task.id in ended else self._admit(state, entries)
            self._entered(state)
        self._count_tasks.inc(len(unknown))
        self._act(decisions)

    async def _read_logs(self, tasks: Collection[str]) -> dict[str, list[Entry]]:
        logs = await asyncio.gather(*(self._own.world.to.log.read(task) for task in tasks))
        return dict(zip(tasks, logs, strict=True))

    def _repeated(self, task: Task, place: Place) -> bool:
        """Does the task have another record that is known here?"""
        state = self._own.table.get(task.id)
        if state is None:
            return False
        state.places.append(place)
        self._own.by_place[place] = state
        self._count_repeated.inc()
        return True

    def _state(self, task: Task, record: Record) -> TaskState:
        at = monotonic()
        due = task.deadline.seconds + task.deadline.nanos / 1e9 if task.HasField("deadline") else float("inf")
        state = TaskState(
            task=task,
            priority_class=record.place.partition[0],
            cost=token_cost(task.estimated_prompt_tokens, task.estimated_output_tokens),
            deadline=at + due - now(),
            size=len(record.value),
            since=at,
            places=[record.place],
        )
        self._own.by_place[record.place] = state
        self._read_ahead.entered(state.priority_class, state.size)
        return state

    def _admit(self, state: TaskState, entries: Sequence[Entry]) -> list[Decision]:
        at = monotonic()
        return self._own.scheduler.admit(state, trace_of(entries), at, expecting=at < self._expect_until)

    def _ended(self, state: TaskState, entries: Sequence[Entry]) -> list[Decision]:
        """It never runs again: where its log is still there its end routine is repeated."""
        table = self._own.table
        if not entries:
            table.enter(state, Trace())
            return table.closed(state, monotonic(), answered=False)
        if not any(isinstance(entry, Terminal) for entry in entries):
            return self._admit(state, entries)  # its end was forgotten, its claim was not
        table.enter(state, trace_of(entries))
        return table.end(state, OUTCOME_KIND_UNSPECIFIED)

    def _look_whether_caught_up(self) -> None:
        if all(self._own.offsets[p].position >= end for p, end in self._ends.items()):
            self._behind = False
            self._act(self._own.scheduler.catch_up())
            log.info("pool %s: caught up, %d tasks", self._own.pool, len(self._own.table.tasks))


def trace_of(entries: Sequence[Entry]) -> Trace:
    """What a log says of the attempts so far."""
    headers = [entry for entry in entries if isinstance(entry, Header)]
    begun = sum(1 for header in headers if not header.follows)
    return Trace(headers[-1].attempt, begun, headers[-1].follows) if headers else Trace()
