"""What the dispatcher needs from the world, beside the token log library's ports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from millrace.task.v1.task_pb2 import DeadTask, Task
from services.chassis.kafka import KafkaAwayError
from services.chassis.resp import RedisAwayError, RunChangedError
from services.dispatcher.core.offsets import Commit
from services.dispatcher.core.task_state import Partition, Place
from services.pools.core.ownership import Owner

__all__ = [
    "Held",
    "KafkaAwayError",
    "LaneLog",
    "LeaseLostError",
    "NoCommittedOffsetError",
    "PoolLease",
    "Record",
    "RedisAwayError",
    "RunChangedError",
    "Stretch",
]


class NoCommittedOffsetError(RuntimeError):
    """A lane has no committed offset, or one that its log does not have. The message says what to do."""


class LeaseLostError(RuntimeError):
    """The pool is not ours any more."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a lane."""

    place: Place
    value: bytes


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a partition holds for a new owner: its committed offset and metadata, and where its log ended at that moment."""

    committed: Commit
    end: int


class LaneLog(Protocol):
    """The lanes of one pool. One owner reads all of their partitions; nobody joins a consumer group."""

    async def open(self) -> dict[Partition, Stretch]:
        """Begin to read each partition at its committed offset.

        Raises NoCommittedOffsetError: neither the earliest nor the latest record may be guessed. Raises KafkaAwayError.
        """
        ...

    async def read(self) -> list[Record]:
        """The next records, in the order of their partition; empty after a short while without any. Raises KafkaAwayError."""
        ...

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Hand out no more records of these; what was fetched and not handed out is fetched again later."""
        ...

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Go on with them."""
        ...

    async def committed(self) -> dict[Partition, Commit]:
        """What is committed now, by whomever. Raises KafkaAwayError, NoCommittedOffsetError."""
        ...

    async def commit(self, commits: Mapping[Partition, Commit]) -> None:
        """Return once they are stored. Raises KafkaAwayError."""
        ...

    async def move(self, task: Task, partition: Partition) -> None:
        """Produce the task's record again at the tail of its lane. Raises KafkaAwayError."""
        ...

    async def bury(self, dead: DeadTask) -> None:
        """Put the task into `tasks.dead`. Raises KafkaAwayError."""
        ...

    async def close(self) -> None:
        """Read no more."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that was ours when it was last written: under which epoch and Redis run, and until when by our own clock.

    `until` is counted from before the write was sent, so whoever looks at the clock first never acts on a lease that
    somebody else may have taken: not after a long pause either.
    """

    epoch: int
    run_id: str
    until: float


class PoolLease(Protocol):
    """Who owns a pool. Times of `Held` are those of `services.chassis.clock.monotonic`."""

    async def acquire(self, floor: int) -> Held | Owner | None:
        """Take the pool if nobody owns it, under an epoch above `floor` and all earlier ones; else who owns it.

        None when the owner left between two looks. Raises RedisAwayError.
        """
        ...

    async def renew(self, held: Held) -> Held:
        """Keep it. Raises LeaseLostError, RunChangedError, RedisAwayError."""
        ...

    async def release(self, held: Held) -> None:
        """Give it up, unless it is lost already. Raises RedisAwayError."""
        ...

    async def confirm(self, held: Held) -> None:
        """Return if Redis answers and is still the same run. Raises RunChangedError, RedisAwayError."""
        ...
