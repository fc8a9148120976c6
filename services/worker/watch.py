"""What only time shows: deadlines, engines that went silent, engines that are not ready."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from services.chassis.clock import monotonic, now
from services.chassis.deadline import remaining
from services.chassis.metrics import worker_engine_faults
from services.tasklog.core import outcomes
from services.worker.core.attempt_plan import Expired, Patience, Stalled, overdue
from services.worker.core.credits import EngineHealth
from services.worker.flusher import Flusher
from services.worker.ports import Engine
from services.worker.task_run import TaskRun

log = logging.getLogger(__name__)

READY_S: Final = 1.0  # between two questions to the engine
ANSWER_S: Final = 5.0  # for its answer


def watch_runs(runs: Iterable[TaskRun], flusher: Flusher, patience: Patience, health: EngineHealth) -> None:
    """End what expired, fail what stalled. Call it ten times a second: cheaper than a timer for every token."""
    at, unix = monotonic(), now()
    for run in runs:
        if not run.undecided:
            continue
        match overdue(remaining(run.deadline, unix), at - run.sign_at, began=run.began, patience=patience):
            case Expired():
                run.end(outcomes.expired)
                flusher.mark(run, at_once=True)
            case Stalled(message):
                log.warning("task %s attempt %d: %s", run.task.id, run.answer.attempt, message)
                worker_engine_faults.labels("stalled").inc()
                health.fault(at)
                run.fail(message)
                flusher.mark(run)


async def watch_engine(engine: Engine, health: EngineHealth, told: Callable[[], None]) -> None:
    """Ask the engine once a second whether it is ready, and call `told` after each answer. Runs until cancelled."""
    while True:
        try:
            async with asyncio.timeout(ANSWER_S):
                ready = await engine.ready()
        except Exception as reason:  # noqa: BLE001 - whatever keeps it from answering, it is not ready
            log.debug("the engine does not answer: %s", reason)
            ready = False
        if ready != health.ready:
            log.info("the engine is %s", "ready" if ready else "not ready")
        health.ready = ready
        told()
        await asyncio.sleep(READY_S)
