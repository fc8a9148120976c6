"""One ownership of a pool, from the lease to its loss: the parts put together, and decisions carried out.

Everything happens on one loop; parts meet only here. Whoever fails ends the ownership: the lanes and the logs hold everything
that the next one needs.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from millrace.config.v1.config_pb2 import Pool
from millrace.dispatch.v1.dispatch_pb2 import DispatcherEvent, Hello
from services.chassis import metrics
from services.chassis.clock import monotonic
from services.dispatcher.closing import Closing
from services.dispatcher.commits import Commits
from services.dispatcher.core.decisions import Acknowledge, Assign, Decision, Stop
from services.dispatcher.core.offsets import Offsets
from services.dispatcher.core.pool_signal import pool_signal
from services.dispatcher.core.read_ahead import ReadAhead
from services.dispatcher.core.scheduler import Scheduler
from services.dispatcher.core.task_table import TaskTable
from services.dispatcher.core.work import ServiceTimes
from services.dispatcher.intake import Intake
from services.dispatcher.outbox import Outbox
from services.dispatcher.ownership import Ownership, Pace, World
from services.dispatcher.ports import Held, LeaseLostError, RedisAwayError
from services.dispatcher.signal_board import SignalBoard
from services.dispatcher.worker_streams import WorkerStream, WorkerStreams
from services.pools.core.lanes import CLASS_NAMES

log = logging.getLogger(__name__)

CHUNK: Final = 200  # assignments made before others get the loop


class EpochOutrankedError(RuntimeError):
    """A worker has obeyed a higher epoch than ours."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"a worker has seen epoch {epoch}")
        self.epoch = epoch


class PoolOwner:
    """`run` ends only by raising why the ownership ended. `times` is what the pool has learned, which outlives ownerships."""

    def __init__(
        self, config: Pool, world: World, held: Held, *, pace: Pace, read_ahead: int, times: ServiceTimes
    ) -> None:
        self.pool = config.name
        self._worker_slots = config.slots
        self._pace = pace
        self._times = times
        self._world = world
        table = TaskTable(held.epoch, pace.commit_horizon_s, config.max_attempts, monotonic())
        self.scheduler = Scheduler(table, times, held.run_id, pace.silence_s)
        self._group = asyncio.TaskGroup()
        self._own = Ownership(self.pool, held, world, self.scheduler, self._group)
        self._wake = asyncio.Event()
        self.workers = WorkerStreams(self.scheduler, pace.commit_horizon_s, self.act, self._wake.set)
        self.signals = SignalBoard(self.scheduler, held.epoch, self._look_at_cancel)
        self._closing = Closing(self._own, self.act)
        sizes = ReadAhead(read_ahead)
        self._intake = Intake(self._own, sizes, pace.expect_s, self.act, self.signals.entered)
        self._commits = Commits(self._own, sizes, pace)
        self._waits = metrics.dispatcher_wait_seconds.labels(self.pool)
        self._firsts, self._agains = (
            metrics.dispatcher_attempts.labels(self.pool, kind) for kind in ("first", "again")
        )
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def epoch(self) -> int:
        """Under which this owner acts."""
        return self._own.held.epoch

    def holds(self) -> bool:
        """May it still act?"""
        return self._own.holds()

    def configure(self, config: Pool, weights: Mapping[str, float]) -> None:
        """Take a new configuration."""
        self.scheduler.table.max_attempts = config.max_attempts
        self._worker_slots = config.slots
        self.scheduler.table.queue.set_weights(weights)

    def attach(self, hello: Hello, outbox: Outbox[DispatcherEvent]) -> WorkerStream:
        """A worker's stream begins."""
        if hello.highest_epoch > self.epoch and not self._failure.done():
            self._failure.set_exception(EpochOutrankedError(hello.highest_epoch))
        return self.workers.open(hello, outbox)

    async def run(self) -> None:
        """Own the pool.

        Raises why it ended: LeaseLostError, RunChangedError, EpochOutrankedError, KafkaAwayError, NoCommittedOffsetError, or a
        bug.
        """
        stretches = await self._world.lanes.open()
        self._own.offsets = {p: Offsets(s.committed.offset, s.committed.metadata) for p, s in stretches.items()}
        metrics.dispatcher_owned.labels(self.pool).set(1)
        try:
            async with self._group:
                self._own.spawn(self._keep(), "lease")
                self._own.spawn(self._watch_failure(), "failure")
                self._own.spawn(self._tick(), "tick")
                self._own.spawn(self._assign(), "assignment")
                self._own.spawn(self._commits.run(), "commits")
                self._own.spawn(self._stop_expecting(), "expectations")
                self._intake.begin({p: s.end for p, s in stretches.items()})
                self._own.spawn(self._intake.run(), "intake")
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures
        finally:
            metrics.dispatcher_owned.labels(self.pool).set(0)
            self.workers.close_all()
            self.signals.close_all()
            await self._world.lanes.close()

    async def leave(self) -> None:
        """Commit once more and give the lease up, so that the standby need not wait."""
        try:
            await self._commits.finish()
            await self._commits.commit()
        finally:
            await self._world.lease.release(self._own.held)

    # -- decisions --------------------------------------------------------------------------------------------------------

    def act(self, decisions: Sequence[Decision]) -> None:
        """Carry decisions out, or begin to. Also without any: whoever decided may have let a task wait."""
        unchecked: list[Assign] = []
        others = []
        for decision in decisions:
            match decision:
                case Assign(check=False):
                    self._send(decision)
                case Assign():
                    unchecked.append(decision)
                case Acknowledge():
                    self.workers.acknowledge(decision)
                case Stop():
                    self.workers.stop(decision)
                case _:
                    others.append(decision)
        if unchecked:
            self._own.spawn(self._check(unchecked), "cancels")
        if others:
            self._closing.carry_out(others)
        self._wake.set()

    def _send(self, assign: Assign) -> None:
        state = assign.state
        if state.history.begun == 1:
            self._waits.observe(monotonic() - state.since)
            self._firsts.inc()
        else:
            self._agains.inc()
        self.workers.assign(assign)

    async def _assign(self) -> None:
        """Give turns whenever something may have changed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.holds() and (decisions := self.scheduler.assign(monotonic(), CHUNK)):
                self.act(decisions)
                self._wake.clear()
                await asyncio.sleep(0)

    async def _check(self, assigns: Sequence[Assign]) -> None:
        """Look at the truth about cancels before these tasks, which have waited, reach an engine."""
        token_log = self._world.to.log
        try:
            wishes: Sequence[bool] = await asyncio.gather(*(token_log.cancel_wished(a.state.id) for a in assigns))
        except RedisAwayError:
            wishes = [False] * len(assigns)  # the worker looks again with the first delta
        for assign, wished in zip(assigns, wishes, strict=True):
            if wished:
                self.act(self.scheduler.call_off(assign))
            if self.scheduler.stands(assign):
                self._send(assign)

    def _look_at_cancel(self, task: str) -> None:
        """A gateway says that a cancel was written."""
        if self.scheduler.table.get(task):
            self._own.spawn(self._cancel(task), "cancel")

    async def _cancel(self, task: str) -> None:
        try:
            if await self._world.to.log.cancel_wished(task):
                self.act(self.scheduler.cancel(task))
        except RedisAwayError:
            log.info("the cancel of %s is looked at before its turn: Redis is away", task)

    # -- time -------------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Renew the lease, as long as it is ours by the clock too."""
        while True:
            try:
                self._own.held = await self._world.lease.renew(self._own.held)
            except RedisAwayError as reason:
                log.warning("pool %s: the lease is not renewed: %s", self.pool, reason)
            if not self.holds():
                raise LeaseLostError(f"the lease on pool {self.pool} ran out")
            await asyncio.sleep(self._pace.renew_s)

    async def _watch_failure(self) -> None:
        await self._failure

    async def _stop_expecting(self) -> None:
        await asyncio.sleep(self._pace.expect_s)
        self.act(self.scheduler.stop_expecting())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._pace.tick_s)
            if not self.holds():
                continue  # the lease's keeper ends it
            at = monotonic()
            workers = len(self.scheduler.roster)
            self.act(self.scheduler.lost(at))
            metrics.dispatcher_workers_lost.labels(self.pool).inc(max(workers - len(self.scheduler.roster), 0))
            self.act(self.scheduler.table.expire(at))
            await self._commits.finish()
            self._publish(at)

    def _publish(self, at: float) -> None:
        signal = pool_signal(self.pool, self.scheduler, at, self._worker_slots)
        self.signals.tick(signal)
        metrics.dispatcher_work.labels(self.pool).set(signal.work_s)
        metrics.dispatcher_slots.labels(self.pool, "all").set(signal.slots)
        metrics.dispatcher_slots.labels(self.pool, "busy").set(signal.busy_slots)
        for entry in signal.classes:
            metrics.dispatcher_waiting.labels(self.pool, CLASS_NAMES[entry.priority_class]).set(entry.waiting)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that ended the ownership; the others are its echo."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
