"""One task as the owner of its pool sees it."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple, TypeAlias

from millrace.task.v1.task_pb2 import PriorityClass, Task
from services.dispatcher.core.attempts import History

Partition: TypeAlias = tuple[PriorityClass, int]


class Place(NamedTuple):
    """Where a record of the task lies."""

    partition: Partition
    offset: int


class Stage(Enum):
    """Where a task is in its life."""

    EXPECTED = auto()  # an earlier owner gave it to a worker that has not spoken yet
    WAITING = auto()  # in the fair queue
    FOLLOWING = auto()  # its twin runs
    RUNNING = auto()  # a worker has it
    ENDING = auto()  # its end is being written here
    ENDED = auto()  # its end is younger than the commit horizon


@dataclass(frozen=True, slots=True)
class Trace:
    """What a task's log shows of earlier owners' attempts: the newest, how many there were, and whom it followed last."""

    head: int = 0
    begun: int = 0
    follows: str = ""


@dataclass(slots=True, eq=False)
class TaskState:
    """Times in seconds of the owner's clock. `attempt` is the newest number given, `worker` and `boot` the process that got it."""

    task: Task
    priority_class: PriorityClass
    cost: float
    deadline: float
    size: int
    since: float
    places: list[Place]
    stage: Stage = Stage.WAITING
    attempt: int = 0
    worker: str = ""
    boot: int = 0
    prefer: str = ""  # the worker that holds the text Redis forgot
    avoid: str = ""  # the worker where the last attempt failed
    assigned_at: float = 0.0
    first_started: float = 0.0  # Unix seconds; 0 = never, or before this owner's time
    started: bool = False
    prompt_tokens: int = 0
    output_tokens: int = 0  # of the whole text, as its present attempt says
    most_tokens: int = 0  # that earlier attempts said
    answered: bool = False
    cancel_wished: bool = False
    history: History = field(default_factory=History)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        self.id = self.task.id

    def held_by(self, worker: str, boot: int) -> bool:
        """Was the newest attempt given to this very process?"""
        return self.worker == worker and self.boot == boot

    def outranked(self, attempt: int) -> None:
        """A number was given that is no worker's, so none may go on from its own text."""
        if attempt > self.attempt:
            self.attempt, self.worker, self.boot = attempt, "", 0
