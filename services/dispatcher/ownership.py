"""What one ownership of a pool shares between its parts: one event loop, one owner, from a lease to its loss."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services.chassis.backoff import backoff
from services.chassis.clock import monotonic
from services.dispatcher.core.offsets import Offsets
from services.dispatcher.core.roster import SILENCE_S
from services.dispatcher.core.scheduler import Scheduler
from services.dispatcher.core.task_state import Partition, Place, TaskState
from services.dispatcher.core.task_table import TaskTable
from services.dispatcher.ports import Held, KafkaAwayError, LaneLog, PoolLease, RedisAwayError, RunChangedError
from services.tasklog.ending import Destinations
from services.tasklog.ports import TaskControl

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """The ports an ownership uses. `writer` names this dispatcher in token logs."""

    lanes: LaneLog
    lease: PoolLease
    control: TaskControl
    to: Destinations
    writer: str


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds; see settings."""

    renew_s: float = 0.5
    commit_horizon_s: float = 2.0
    commit_s: float = 0.5
    expect_s: float = 1.5
    claim_keep_s: float = 900.0
    tick_s: float = 0.1
    silence_s: float = SILENCE_S


@dataclass(slots=True, eq=False)
class Ownership:
    """The state of one ownership: `held` is the only thing that says whether it still may act."""

    pool: str
    held: Held
    world: World
    scheduler: Scheduler
    group: asyncio.TaskGroup
    offsets: dict[Partition, Offsets] = field(default_factory=dict)
    by_place: dict[Place, TaskState] = field(default_factory=dict)  # unfinished records

    @property
    def table(self) -> TaskTable:
        """The tasks."""
        return self.scheduler.table

    def holds(self) -> bool:
        """May this owner still act? Asked by the clock before every act: a process that was stopped wakes as a stranger."""
        return monotonic() < self.held.until

    def check_run(self, run_id: str) -> None:
        """Raises RunChangedError if `run_id` is not the run of this ownership: what was written may be forgotten."""
        if run_id != self.held.run_id:
            raise RunChangedError(f"Redis run {run_id[:8]} is not {self.held.run_id[:8]}")

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do it beside everything else; it ends with the ownership, and its failure ends the ownership."""
        try:
            self.group.create_task(work, name=f"{self.pool}: {name}")
        except RuntimeError:  # the ownership is ending: whoever reads the records again does it
            work.close()


async def patiently(what: str, step: Callable[[], Awaitable[T]]) -> T:
    """Repeat a step while Redis or Kafka is away; the ownership's end cancels it."""
    delays = backoff(0.05, 0.5)
    while True:
        try:
            return await step()
        except (RedisAwayError, KafkaAwayError) as reason:
            log.warning("%s waits: %s", what, reason)
            await asyncio.sleep(next(delays))
