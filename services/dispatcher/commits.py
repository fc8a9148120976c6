"""From an ended task to a committed offset.

An end counts once it is older than what Redis may forget and Redis is still the same run. Then its records are finished, the
next commit says so, and only then may the task's claim expire.
"""

import asyncio
import logging
from typing import Final

from services.chassis.clock import monotonic
from services.chassis.metrics import dispatcher_commit_lag, dispatcher_moved
from services.dispatcher.core.offsets import Commit
from services.dispatcher.core.read_ahead import ReadAhead
from services.dispatcher.core.task_state import Partition, Place
from services.dispatcher.ownership import Ownership, Pace
from services.dispatcher.ports import KafkaAwayError, RedisAwayError

log = logging.getLogger(__name__)

REPEAT_S: Final = 3600.0  # Kafka forgets the offsets of idle groups after a week
MOVES: Final = 64  # records of one partition moved per commit: what the copies may cost is bounded


class Commits:
    """Finishes and commits the records of one ownership."""

    def __init__(self, own: Ownership, read_ahead: ReadAhead, pace: Pace) -> None:
        self._own = own
        self._read_ahead = read_ahead
        self._pace = pace
        self._merged = False
        self._repeat_at = monotonic() + REPEAT_S
        self._again = False
        self._expiring: list[tuple[str, list[Place]]] = []

    async def run(self) -> None:
        """Commit until cancelled."""
        while True:
            await asyncio.sleep(self._pace.commit_s)
            try:
                await self.commit()
                await self._move()
            except (KafkaAwayError, RedisAwayError) as reason:
                log.warning("pool %s: committing waits: %s", self._own.pool, reason)

    async def finish(self) -> None:
        """Count what passed the horizon as finished. Raises RunChangedError: the ends may be forgotten."""
        own, at = self._own, monotonic()
        if not own.table.any_due(at):
            return
        try:
            await own.world.lease.confirm(own.held)
        except RedisAwayError:
            return
        for state in own.table.due(at):
            own.table.forget(state)
            self._read_ahead.left(state.priority_class, state.size)
            for place in state.places:
                self._finish(place)
            self._expiring.append((state.id, state.places))

    async def commit(self) -> None:
        """Commit what changed, then let claims expire. Raises KafkaAwayError, RedisAwayError."""
        own = self._own
        if not own.holds():
            return
        if not self._merged:
            # A commit without a group is not fenced: never go back behind what another owner committed meanwhile.
            for partition, theirs in (await own.world.lanes.committed()).items():
                own.offsets[partition].merge(theirs.offset, theirs.metadata)
            self._merged = True
        again = self._again or monotonic() >= self._repeat_at
        commits: dict[Partition, Commit] = {}
        for partition, offsets in own.offsets.items():
            if commit := offsets.commit(again=again):
                commits[partition] = commit
        if commits and own.holds():
            self._again = True  # until this one has succeeded
            await own.world.lanes.commit(commits)
            self._again = False
            if again:
                self._repeat_at = monotonic() + REPEAT_S
        dispatcher_commit_lag.labels(own.pool).set(sum(offsets.lag for offsets in own.offsets.values()))
        await self._expire()

    async def _expire(self) -> None:
        own = self._own
        covered: list[str] = []
        left: list[tuple[str, list[Place]]] = []
        for task, places in self._expiring:
            if all(own.offsets[place.partition].committed(place.offset) for place in places):
                covered.append(task)
            else:
                left.append((task, places))
        await asyncio.gather(*(own.world.control.expire(task, self._pace.claim_keep_s) for task in covered))
        self._expiring = left

    async def _move(self) -> None:
        """Produce again what holds up the commits of many behind it. Raises KafkaAwayError."""
        own = self._own
        for partition, offsets in own.offsets.items():
            for _ in range(MOVES):
                if not offsets.crowded or not own.holds():
                    break
                oldest = Place(partition, offsets.base)
                state = own.by_place.get(oldest)
                if state is None or oldest not in state.places:
                    break
                await own.world.lanes.move(state.task, partition)
                if oldest in state.places:  # it may have ended meanwhile
                    state.places.remove(oldest)
                self._finish(oldest)
                dispatcher_moved.labels(own.pool).inc()

    def _finish(self, place: Place) -> None:
        self._own.by_place.pop(place, None)
        self._own.offsets[place.partition].finish(place.offset)
