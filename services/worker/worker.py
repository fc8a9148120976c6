"""The worker as the dispatcher sees it: takes tasks against credits, reports how each attempt settled, drains.

One event loop, no locks: the runs and the held texts belong to this object, everything else asks it.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Final

from millrace.dispatch.v1.dispatch_pb2 import (
    Assign,
    Cancel,
    DispatcherEvent,
    Fenced,
    Finished,
    Heartbeat,
    Hello,
    Need,
    Progress,
    Running,
    Started,
    WorkerEvent,
)
from services.chassis.clock import monotonic
from services.chassis.metrics import worker_active, worker_attempts, worker_held, worker_slots
from services.tasklog.core import outcomes
from services.tasklog.ending import Destinations
from services.worker.carrier import Carrier
from services.worker.core.answer import Answer
from services.worker.core.attempt_plan import Patience, Settled
from services.worker.core.credits import EngineHealth, free_slots
from services.worker.core.held_texts import HeldTexts
from services.worker.flusher import Flusher
from services.worker.ports import Engine, Prompts
from services.worker.reports import Reports
from services.worker.task_run import TaskRun
from services.worker.watch import watch_engine, watch_runs

log = logging.getLogger(__name__)

WATCH_S: Final = 0.1  # how often deadlines, silence and the Redis run are looked at
PROGRESS_S: Final = 0.25
HORIZON_S: Final = 2.0  # until a Welcome says it
MARGIN_S: Final = 1.0  # the acknowledgment took a while to arrive
GOODBYE_S: Final = 2.0  # of the drain time, for handing over what did not finish


class Worker:
    """One engine's tasks.

    `send` tells the dispatcher, `reattach` begins a new stream; `busy` gives the busy share of the loop, 0 to 1.
    """

    def __init__(
        self,
        *,
        name: str,
        pool: str,
        boot: int,
        slots: int,
        to: Destinations,
        engine: Engine,
        prompts: Prompts,
        flusher: Flusher,
        patience: Patience,
        heartbeat_s: float,
        send: Callable[[WorkerEvent], None],
        reattach: Callable[[], None],
        busy: Callable[[], float],
    ) -> None:
        self._name, self._pool, self._boot, self._slots = name, pool, boot, slots
        self._log, self._engine, self._flusher = to.log, engine, flusher
        self._patience, self._heartbeat_s = patience, heartbeat_s
        self._send, self._reattach, self._busy = send, reattach, busy
        self._health = EngineHealth()
        self._reports = Reports(send)
        self._carrier = Carrier(
            name=name,
            to=to,
            flusher=flusher,
            engine=engine,
            prompts=prompts,
            health=self._health,
            started=self._started,
            freed=self._freed,
        )
        self._runs: dict[str, TaskRun] = {}
        self._in_engine: set[str] = set()  # tasks that take a slot
        self._held = HeldTexts()
        self._horizon_s = HORIZON_S
        self._redis_run = ""
        self._draining = False
        self._drains_until = 0.0
        self.attached = False
        worker_slots.set(slots)

    @property
    def engine_ready(self) -> bool:
        """By the engine's own last word."""
        return self._health.ready

    def set_slots(self, slots: int) -> None:
        """Run this many tasks at once; those above it finish."""
        self._slots = slots
        worker_slots.set(slots)
        self._give_credit()

    # -- the line to the dispatcher -------------------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Everything a new owner must know to adopt what this worker has."""
        return Hello(
            worker=self._name,
            boot=self._boot,
            pool=self._pool,
            slots=self._slots,
            running=[Running(task=task, attempt=run.answer.attempt) for task, run in self._runs.items()],
            finished=self._reports.again(),
            draining=self._draining,
        )

    def detached(self) -> None:
        """What runs goes on: the log fences it if it is replaced."""
        if self.attached:
            log.info("lost the line to the dispatcher, %d tasks go on", len(self._runs))
        self.attached = False

    def take(self, event: DispatcherEvent) -> None:
        """Obey one event."""
        match event.WhichOneof("event"):
            case "welcome":
                self.attached = True
                log.info("attached to the owner of pool %s", self._pool)
                self._horizon_s = event.welcome.commit_horizon_s or HORIZON_S
                self._reports.welcome()
                self._give_credit()
            case "assign":
                self._assign(event.assign)
            case "cancel":
                self._cancel(event.cancel)
            case "finished_ack":
                if self._reports.acknowledged(event.finished_ack):
                    self._held.keep_until(event.finished_ack.task, monotonic() + self._horizon_s + MARGIN_S)
            case unknown:
                log.warning("the dispatcher says %s, which is not known here", unknown)

    def _assign(self, assign: Assign) -> None:
        task = assign.task.id
        run = self._runs.get(task)
        if run and assign.attempt <= run.answer.attempt:
            return
        self._reports.assigned(task)
        answer = self._held.grant(task, assign.attempt, assign.previous_attempt)
        if run and answer:
            if run.job:
                run.job.cancel()
            run.take_attempt(assign)
        else:
            if run:
                self._abandon(run)
            if answer is None:
                if self._draining:
                    self._reports.finished(Finished(task=task, attempt=assign.attempt, handed_back=True))
                    return
                answer = Answer(assign.attempt)
                self._held.hold(task, answer)
                self._in_engine.add(task)
            run = self._runs[task] = TaskRun(assign, answer)
        run.job = asyncio.create_task(self._work(run), name=f"task {task}")

    def _cancel(self, cancel: Cancel) -> None:
        run = self._runs.get(cancel.task)
        if run and cancel.attempt in (0, run.answer.attempt):
            run.cancelled = True
            if run.answer.gen:
                run.end(outcomes.cancelled)
                self._flusher.mark(run, at_once=True)

    def _give_credit(self) -> None:
        if self.attached and not self._draining and self._health.takes_work(monotonic()):
            running = len(self._in_engine)
            self._reports.credit(free_slots(self._slots, running, ending=len(self._runs) - running))

    # -- attempts -------------------------------------------------------------------------------------------------------

    async def _work(self, run: TaskRun) -> None:
        try:
            settled = await self._carrier.carry(run)
        except Exception as error:
            log.exception("task %s attempt %d", run.task.id, run.answer.attempt)
            run.failure, settled = f"{type(error).__name__} in the worker", Settled.FAILED
        run.job = None
        self._settled(run, settled)

    def _settled(self, run: TaskRun, settled: Settled) -> None:
        task, answer = run.task.id, run.answer
        worker_attempts.labels(settled.name.lower()).inc()
        if settled is Settled.LOST:
            self._need(task, answer)
            return
        self._leave(run)
        if settled is not Settled.LOGGED:
            self._held.drop(task)
        finished = Finished(task=task, attempt=answer.attempt, run_id=answer.run_id)
        match settled:
            case Settled.LOGGED:
                assert answer.outcome is not None
                finished.outcome.CopyFrom(answer.outcome)
                self._reports.finished(finished)
            case Settled.FAILED:
                finished.failure = run.failure
                self._reports.finished(finished)
            case Settled.HANDED_BACK:
                finished.handed_back = True
                self._reports.finished(finished)
            case Settled.FENCED:
                self._send(WorkerEvent(fenced=Fenced(task=task, attempt=answer.attempt)))
        self._give_credit()

    def _abandon(self, run: TaskRun) -> None:
        """Somebody else has the task by now."""
        if run.job:
            run.job.cancel()
        self._leave(run)

    def _leave(self, run: TaskRun) -> None:
        run.open = False
        run.stop_engine()
        self._runs.pop(run.task.id, None)
        self._in_engine.discard(run.task.id)

    def _started(self, run: TaskRun) -> None:
        started = Started(task=run.task.id, attempt=run.answer.attempt, prompt_tokens=run.prompt_tokens)
        self._send(WorkerEvent(started=started))

    def _freed(self, run: TaskRun) -> None:
        if self._runs.get(run.task.id) is run:
            self._in_engine.discard(run.task.id)
        self._give_credit()

    # -- when Redis forgot ----------------------------------------------------------------------------------------------

    def _look_at_redis(self) -> None:
        """Another run id: whatever was logged under the old one may be gone, also of tasks that ended."""
        if self._log.run_id == self._redis_run:
            return
        self._redis_run = self._log.run_id
        for task, answer in self._held.all():
            if answer.run_id and answer.run_id != self._redis_run:
                if run := self._runs.get(task):
                    run.open = False
                    if run.job:
                        run.job.cancel()
                self._need(task, answer)

    def _need(self, task: str, answer: Answer) -> None:
        self._reports.need(Need(task=task, attempt=answer.attempt, run_id=self._log.run_id))

    def _forget(self) -> None:
        """Let go of texts whose end is durable, and of those that this worker will not be asked for any more."""
        for task in self._held.forget(monotonic()):
            self._reports.needless(task)
        for task in self._reports.ask_again() if self.attached else ():
            self._held.drop(task)
            if run := self._runs.get(task):
                self._abandon(run)
                self._send(WorkerEvent(fenced=Fenced(task=task, attempt=run.answer.attempt)))

    # -- time -----------------------------------------------------------------------------------------------------------

    async def tend(self) -> None:
        """Deadlines, silence, reports: whatever time brings. Runs until cancelled."""
        progress_at = heartbeat_at = 0.0
        while True:
            watch_runs(self._runs.values(), self._flusher, self._patience, self._health)
            self._look_at_redis()
            at = monotonic()
            if self._draining and at >= self._drains_until:
                self.drain_for(0.0)
            if at >= progress_at:
                progress_at = at + PROGRESS_S
                self._progress()
            if at >= heartbeat_at:
                heartbeat_at = at + self._heartbeat_s
                self._send(WorkerEvent(heartbeat=Heartbeat(busy=self._busy())))
                self._forget()
                worker_active.set(len(self._in_engine))
                worker_held.set(len(self._held))
            self._give_credit()  # the engine may have come back
            await asyncio.sleep(WATCH_S)

    async def watch_engine(self) -> None:
        """Know whether the engine takes work. Runs until cancelled."""
        await watch_engine(self._engine, self._health, self._give_credit)

    def _progress(self) -> None:
        for task, run in self._runs.items():
            answer = run.answer
            wished = run.cancel_wished and run.undecided  # told until it is answered: an owner may be new
            if wished or answer.tokens != run.reported_tokens:
                run.reported_tokens = answer.tokens
                progress = Progress(task=task, attempt=answer.attempt, completion_tokens=answer.tokens)
                progress.cancel_wished = wished
                self._send(WorkerEvent(progress=progress))

    # -- leaving --------------------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Does it take nothing new?"""
        return self._draining

    @property
    def in_flight(self) -> int:
        """Tasks that run, and one more while an end is not acknowledged."""
        return len(self._runs) + (not self._reports.all_heard)

    def drain_for(self, seconds: float) -> None:
        """Take nothing new for so long and finish what runs; 0: take work again. What has no text yet is handed back."""
        draining = seconds > 0
        self._drains_until = monotonic() + seconds
        if self._draining == draining:
            return
        self._draining = draining
        self._reattach()  # a new stream: the credits of the old one are void, and its Hello says why
        for run in tuple(self._runs.values()) if draining else ():
            if not run.answer.gen:
                if run.job:
                    run.job.cancel()
                self._settled(run, Settled.HANDED_BACK)

    async def drain(self, left_s: float) -> None:
        """Take nothing new, finish what runs within `left_s`, hand over the rest: its text is in the log."""
        self.drain_for(math.inf)
        goodbye = min(GOODBYE_S, left_s / 2)
        await _until(lambda: not self._runs, left_s - goodbye)
        for run in self._runs.values():
            run.close(Settled.HANDED_BACK)
            self._flusher.mark(run)
        await _until(lambda: not self._runs and self._reports.all_heard, goodbye)


async def _until(done: Callable[[], bool], at_most_s: float) -> None:
    ends = monotonic() + at_most_s
    while not done() and monotonic() < ends:  # noqa: ASYNC110 - two conditions of many parts, looked at while leaving
        await asyncio.sleep(0.02)
