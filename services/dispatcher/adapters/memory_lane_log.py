"""A pool's lanes in memory, for tests: every user of one `MemoryLanes` sees the same log and the same commits."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from millrace.task.v1.task_pb2 import DeadTask, Task
from services.chassis.kafka import KafkaAwayError
from services.dispatcher.core.offsets import Commit
from services.dispatcher.core.task_state import Partition, Place
from services.dispatcher.ports import NoCommittedOffsetError, Record, Stretch
from services.pools.core.lanes import CLASSES

IDLE_S: Final = 0.02
BATCH: Final = 500


@dataclass(slots=True)
class MemoryLanes:
    """The broker: records and commits of one pool, dead letters. With `away` it does not answer."""

    partitions: int = 1
    records: dict[Partition, list[bytes]] = field(default_factory=dict)
    commits: dict[Partition, Commit] = field(default_factory=dict)
    dead: list[DeadTask] = field(default_factory=list)
    away: bool = False

    def __post_init__(self) -> None:
        for priority_class in CLASSES:
            for partition in range(self.partitions):
                self.records[priority_class, partition] = []
                self.commits[priority_class, partition] = Commit(0, "")

    def append(self, task: Task, partition: int = 0) -> Place:
        """What the router's producer does."""
        records = self.records[task.priority_class, partition]
        records.append(task.SerializeToString())
        return Place((task.priority_class, partition), len(records) - 1)


class MemoryLaneLog:
    """`LaneLog` on shared `MemoryLanes`."""

    def __init__(self, lanes: MemoryLanes) -> None:
        self._lanes = lanes
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()

    async def open(self) -> dict[Partition, Stretch]:
        """Begin at the committed offsets."""
        commits = await self.committed()
        self._positions = {partition: commit.offset for partition, commit in commits.items()}
        self._paused.clear()
        return {p: Stretch(commit, len(self._lanes.records[p])) for p, commit in commits.items()}

    async def read(self) -> list[Record]:
        """What is there, or nothing after a moment."""
        self._check()
        read: list[Record] = []
        for partition in self._positions.keys() - self._paused:
            at = self._positions[partition]
            values = self._lanes.records[partition][at : at + BATCH]
            read += [Record(Place(partition, at + i), value) for i, value in enumerate(values)]
            self._positions[partition] = at + len(values)
        await asyncio.sleep(0 if read else IDLE_S)
        return read

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Hand out no more of these."""
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Go on with them."""
        self._paused.difference_update(partitions)

    async def committed(self) -> dict[Partition, Commit]:
        """What is committed now."""
        self._check()
        if missing := self._lanes.records.keys() - self._lanes.commits.keys():
            raise NoCommittedOffsetError(f"nothing is committed for {sorted(missing)}")
        return dict(self._lanes.commits)

    async def commit(self, commits: Mapping[Partition, Commit]) -> None:
        """Store them."""
        self._check()
        self._lanes.commits.update(commits)

    async def move(self, task: Task, partition: Partition) -> None:
        """The record again at the tail."""
        self._check()
        self._lanes.records[partition].append(task.SerializeToString())

    async def bury(self, dead: DeadTask) -> None:
        """Into the dead letters."""
        self._check()
        self._lanes.dead.append(dead)

    async def close(self) -> None:
        """Read no more."""
        self._positions = {}

    def _check(self) -> None:
        if self._lanes.away:
            raise KafkaAwayError("the lanes in memory are away")
