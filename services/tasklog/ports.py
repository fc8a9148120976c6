"""What the users of a task's log need from the world."""

from collections.abc import Sequence
from typing import Protocol

from millrace.task.v1.task_pb2 import Outcome, Route, Task, UsageRecord
from services.chassis.resp import RedisAwayError, RunChangedError
from services.tasklog.core.control import Claim, Control
from services.tasklog.core.entries import AppendResult, Begin, Delta, Entry, Fenced, Header, Terminal

__all__ = [
    "AnswerStore",
    "Claim",
    "Control",
    "RedisAwayError",
    "RunChangedError",
    "TaskControl",
    "TokenLog",
    "UsageLog",
]


class TokenLog(Protocol):
    """The log of each task's answer. One writer at a time, any number of readers.

    Every method raises RedisAwayError: whether a write happened is then unknown, and writing the same entry again is safe.
    Methods that take `run_id` raise RunChangedError when Redis has another one: it may have forgotten the newest writes.
    """

    @property
    def run_id(self) -> str:
        """The run id of the Redis this log was last connected to."""
        ...

    async def begin(self, task: str, header: Header, keep_s: float) -> Begin | Fenced:
        """Fence first, then read: write the header, only then read what lies below it.

        Creates the log if there is none; it lives `keep_s` seconds from now, or longer if it was to live longer. The run id
        is the header's.
        """
        ...

    async def append(self, run_id: str, entries: Sequence[tuple[str, Delta | Terminal]]) -> list[AppendResult]:
        """Append (task, entry) pairs in one pipeline; one result each, in order. Never creates a log.

        Several entries of one task are written together or not at all. The routes and the wish of each task are read after
        its entries were written. A refused entry is read back: this attempt's own top entry at or above it means written,
        anything else fenced.
        """
        ...

    async def rewrite(self, run_id: str, task: str, whole: Delta, terminal: Terminal | None) -> AppendResult:
        """Log a whole text again as one entry, with its terminal in the same transaction if it had ended.

        `whole` may be empty, for a task that ended without text.
        """
        ...

    async def read(self, task: str, after: tuple[int, int] | None = None) -> list[Entry]:
        """Entries above the id `after` = (attempt, sequence), or all. Empty when there is no log."""
        ...

    async def attach(self, task: str, route: Route, keep_s: float) -> None:
        """Write a reader's route. Attach, then read; writers append, then read the routes: one sees the other."""
        ...

    async def detach(self, task: str, route: Route) -> None:
        """Remove a reader's route."""
        ...

    async def expire(self, task: str, keep_s: float) -> None:
        """Keep the log, its routes and its wishes for `keep_s` seconds from now."""
        ...

    async def wish_cancel(self, task: str, keep_s: float) -> None:
        """Write the wish to cancel: the truth every writer looks at."""
        ...

    async def cancel_wished(self, task: str) -> bool:
        """Was the task's cancel wished?"""
        ...


class TaskControl(Protocol):
    """Claim and state of each task, `t:{id}:ctl`. Written by the router, its end by the dispatcher."""

    async def claim(self, task: Task, keep_s: float) -> Claim:
        """Claim the id for this body and pool (HSETNX) and count the try. Kept as for `begin`."""
        ...

    async def accepted(self, task: str) -> None:
        """The record is committed. Not waited for, a claim counts as queued; and never in place of an end."""
        ...

    async def ended(self, task: str) -> None:
        """Its `Finished` arrived: a later record of it never runs again."""
        ...

    async def expire(self, task: str, keep_s: float) -> None:
        """Only after the commit."""
        ...

    async def get(self, task: str) -> Control | None:
        """None: unknown or forgotten."""
        ...

    async def get_many(self, tasks: Sequence[str]) -> list[Control | None]:
        """As `get`, in one pipeline."""
        ...


class UsageLog(Protocol):
    """Where usage goes: one record per end, keyed by task. Writing one again with the same gen changes nothing."""

    async def write(self, record: UsageRecord) -> None:
        """Return once the record is committed. Raises `services.chassis.kafka.KafkaAwayError`."""
        ...


class AnswerStore(Protocol):
    """Where finished answers go for the exact cache. Failure costs a later miss, never the end of the task."""

    async def store(self, task: Task, text: str, outcome: Outcome) -> None:
        """Store an answer whose task carries a cache ticket, or end its flight when it has no answer."""
        ...
