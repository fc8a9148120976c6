"""What the scheduler wants done. The owner carries decisions out in the order they were made."""

from dataclasses import dataclass
from typing import TypeAlias

from millrace.task.v1.task_pb2 import OutcomeKind
from services.dispatcher.core.task_state import TaskState


@dataclass(frozen=True, slots=True)
class Assign:
    """Give the attempt to the worker. `previous` is its own last attempt at the task, or 0. `check` the wish to cancel first."""

    worker: str
    state: TaskState
    attempt: int
    previous: int
    check: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the worker to end the task as cancelled."""

    worker: str
    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The worker may forget this `Finished`."""

    worker: str
    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Close:
    """The task ended at a worker: write `ctl=ended`, then tell the table, then acknowledge."""

    state: TaskState
    worker: str
    attempt: int
    answered: bool


@dataclass(frozen=True, slots=True)
class End:
    """No worker will run the task any more: end it here, under `attempt`. A failed one is buried in `tasks.dead`.

    Without a kind the log has the end already, and its end routine is to be repeated.
    """

    state: TaskState
    attempt: int
    kind: OutcomeKind
    message: str = ""


@dataclass(frozen=True, slots=True)
class Follow:
    """Write in the task's log that `leader`'s log has its text."""

    state: TaskState
    attempt: int
    leader: str


@dataclass(frozen=True, slots=True)
class Echo:
    """End the follower with the answer in `leader`'s log."""

    state: TaskState
    attempt: int
    leader: str


@dataclass(frozen=True, slots=True)
class FindLeader:
    """The leader is not known here: has it ended with an answer, is its record still to come, or is it gone?"""

    state: TaskState
    leader: str


@dataclass(frozen=True, slots=True)
class FindHead:
    """Somebody fenced an attempt that we thought the newest: read the log's head, then let the task wait again."""

    state: TaskState


Decision: TypeAlias = Assign | Stop | Acknowledge | Close | End | Follow | Echo | FindLeader | FindHead
