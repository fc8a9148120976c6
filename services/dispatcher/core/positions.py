"""What a waiting task's reader is told: its position, its state, how long until it starts; only when that changed."""

from dataclasses import dataclass

from services.dispatcher.core.scheduler import Scheduler
from services.dispatcher.core.task_state import Stage, TaskState

QUEUED = "queued"
RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Standing:
    """`position` 1 = the next of its tenant; 0 when it runs. `eta_s` = seconds until it starts."""

    state: str
    position: int
    eta_s: float

    def differs(self, shown: "Standing | None") -> bool:
        """Is it news? A waiting time that grew or shrank by less than a tenth is not."""
        return (
            shown is None
            or (self.state, self.position) != (shown.state, shown.position)
            or abs(self.eta_s - shown.eta_s) > max(1.0, 0.1 * shown.eta_s)
        )


def standing(scheduler: Scheduler, state: TaskState) -> Standing | None:
    """Where the task stands; None while nobody can say, or after its end."""
    table = scheduler.table
    if state.stage is Stage.FOLLOWING:
        leader = table.get(table.followers.leader_of(state.id) or "")
        return standing(scheduler, leader) if leader else None
    if state.stage is Stage.RUNNING:
        return Standing(RUNNING, 0, 0.0)
    if state.stage is not Stage.WAITING:
        return None
    return Standing(QUEUED, table.queue.position(state.id), _eta_s(scheduler, state))


def _eta_s(scheduler: Scheduler, state: TaskState) -> float:
    """The cost that its class is served before its turn, at the rate at which the pool serves the class."""
    queue, slots = scheduler.table.queue, max(scheduler.roster.slots, 1)
    seconds = queue.cost_ahead(state.id) * scheduler.times.per_cost(state.priority_class)
    return seconds / (slots * queue.share(state.priority_class))
