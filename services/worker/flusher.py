"""Log, then notify: one pipeline for many tasks, then one batch of frames per gateway that reads them.

This is the hot path of the worker. A delta costs one entry of the pipeline and one frame for each reader; nothing here wakes a
coroutine per token. A task is written at most once per tick, and at most `SLICE` tasks at once: an engine that decodes a
batch gives text of hundreds of tasks in one instant, and while the gateway sends one slice the next one is written. From
then on the slices keep their distance, because each task counts its tick from its own last flush.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from millrace.frames.v1.frames_pb2 import FrameBatch
from millrace.task.v1.task_pb2 import Route
from services.chassis.clock import now
from services.chassis.metrics import worker_flush_entries, worker_tick
from services.chassis.pace import Pace
from services.tasklog.core.entries import AppendResult, Delta, Fenced, Lost, Terminal, Written
from services.tasklog.ports import RedisAwayError, RunChangedError, TokenLog
from services.worker.core.attempt_plan import Settled
from services.worker.core.tick import Tick
from services.worker.ports import FramePublisher
from services.worker.task_run import TaskRun

log = logging.getLogger(__name__)

AWAY_RETRY_S: Final = 0.1
SLICE: Final = 64
AT_ONCE: Final = 0.0  # due before all others

Piece: TypeAlias = tuple[TaskRun, Delta | Terminal]


class Flusher:
    """Appends what the open runs have, tells their readers, and settles those that are done.

    `busy` gives the busy share of the loop, 0 to 1.
    """

    def __init__(self, token_log: TokenLog, frames: FramePublisher, tick: Tick, busy: Callable[[], float]) -> None:
        self._log = token_log
        self._frames = frames
        self._tick = tick
        self._busy = busy
        self._dirty: list[TaskRun] = []
        self._clock = asyncio.get_running_loop().time
        self._pace = Pace(lambda: tick.gap_s)

    def mark(self, run: TaskRun, *, at_once: bool = False) -> None:
        """The run has something to log, or settles when it has not: a tick after its last flush, or at once."""
        due = AT_ONCE if at_once else run.flushed_at + self._tick.length_s
        if run.dirty:
            due = min(due, run.due)
        else:
            run.dirty = True
            self._dirty.append(run)
        run.due = due
        self._pace.wake(max(due - self._clock(), 0.0))

    async def run(self) -> None:
        """Flush until cancelled."""
        while True:
            await self._pace.wait()
            worker_tick.set(self._tick.adapt(self._busy()))
            while runs := self._due():
                await self._flush(runs)
            if self._dirty:
                self._pace.wake(max(min(run.due for run in self._dirty) - self._clock(), 0.0))

    def _due(self) -> Sequence[TaskRun]:
        """The slice that is due, the longest due first."""
        at = self._clock()
        due = sorted((run for run in self._dirty if run.due <= at), key=lambda run: run.due)[:SLICE]
        for run in due:
            run.dirty, run.flushed_at = False, at
        if due:
            self._dirty = [run for run in self._dirty if run.dirty]
        return due

    async def _flush(self, runs: Sequence[TaskRun]) -> None:
        by_redis_run: dict[str, list[TaskRun]] = {}
        for run in runs:
            by_redis_run.setdefault(run.answer.run_id, []).append(run)
        for redis_run, group in by_redis_run.items():
            try:
                await self._append(redis_run, group)
            except RunChangedError:
                for run in group:
                    if run.answer.run_id == redis_run:
                        run.settle(Settled.LOST)
            except RedisAwayError:
                # The text gathers in memory, bounded by each task's max_tokens; writing an entry twice is safe.
                asyncio.get_running_loop().call_later(AWAY_RETRY_S, self._again, group)
            except Exception:
                log.exception("a flush of %d tasks failed", len(group))
                await self._isolate(group)

    async def _isolate(self, group: Sequence[TaskRun]) -> None:
        """One task must not hold up the others: flush each alone, and fail the one at fault."""
        if len(group) == 1:
            group[0].failure = "its text could not be logged"
            group[0].settle(Settled.FAILED)
            return
        for run in group:
            await self._flush([run])

    def _again(self, runs: Iterable[TaskRun]) -> None:
        for run in runs:
            self.mark(run)

    async def _append(self, redis_run: str, runs: Sequence[TaskRun]) -> None:
        pieces: list[Piece] = []
        for run in runs:
            answer = run.answer
            if not run.open or answer.run_id != redis_run:
                continue  # it lost its log, or was granted another attempt, while others were written
            if delta := answer.delta():
                pieces.append((run, delta))
            if answer.outcome is not None:
                pieces.append((run, answer.terminal(delta.end if delta else answer.logged)))
            elif delta is None and run.closing:
                run.settle(run.closing)
        if not pieces:
            return
        results = await self._log.append(redis_run, [(run.task.id, entry) for run, entry in pieces])
        worker_flush_entries.observe(len(pieces))
        self._take(pieces, results)

    def _take(self, pieces: Sequence[Piece], results: Sequence[AppendResult]) -> None:
        told: dict[tuple[str, int], FrameBatch] = {}
        for (run, entry), result in zip(pieces, results, strict=True):
            if not run.open or entry.attempt != run.answer.attempt:
                continue  # stopped, or granted another attempt, while this was written
            match result:
                case Written():
                    self._written(run, entry, result, told)
                case Fenced():
                    run.settle(Settled.FENCED)
                case Lost():
                    run.settle(Settled.LOST)
        for (address, _), batch in told.items():
            self._frames.push(address, batch)

    def _written(
        self, run: TaskRun, entry: Delta | Terminal, result: Written, told: dict[tuple[str, int], FrameBatch]
    ) -> None:
        add_frames(told, entry, run.routes, result.routes)
        if isinstance(entry, Terminal):
            run.settle(Settled.LOGGED)
            return
        run.answer.written(entry)
        if run.first_text_at is None and entry.start == 0:
            run.first_text_at = now()
        run.cancel_wished = run.cancel_wished or result.cancel
        if run.closing:
            self.mark(run)

    def tell(self, run: TaskRun, entries: Iterable[Delta | Terminal], routes: Sequence[Route]) -> None:
        """Tell the readers of a text that was logged again."""
        told: dict[tuple[str, int], FrameBatch] = {}
        for entry in entries:
            add_frames(told, entry, run.routes, routes)
        for (address, _), batch in told.items():
            self._frames.push(address, batch)


def add_frames(
    told: dict[tuple[str, int], FrameBatch], entry: Delta | Terminal, own: Sequence[Route], attached: Sequence[Route]
) -> None:
    """One frame for each reader: the one in the task's record and those that attached since."""
    routes = own if not attached else {(r.address, r.boot, r.handle): r for r in (*own, *attached)}.values()
    for route in routes:
        place = (route.address, route.boot)
        batch = told.get(place)
        if batch is None:
            batch = told[place] = FrameBatch(boot=route.boot)
        if isinstance(entry, Delta):
            batch.frames.add(
                handle=route.handle,
                attempt=entry.attempt,
                gen=entry.gen,
                start=entry.start,
                end=entry.end,
                text=entry.text,
            )
        else:
            batch.frames.add(
                handle=route.handle,
                attempt=entry.attempt,
                gen=entry.gen,
                start=entry.end,
                end=entry.end,
                outcome=entry.outcome,
            )
