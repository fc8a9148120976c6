"""Claim and state of tasks in memory, for tests."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from millrace.task.v1.task_pb2 import Task
from services.tasklog.adapters.memory_keys import ExpiringKeys
from services.tasklog.core.control import Claim, Control


@dataclass(slots=True)
class _Held:
    claim: Task | None = None
    tries: int = 0
    state: str = ""


class MemoryTaskControl:
    """`TaskControl` in a dictionary. `clock` gives seconds, as `time.monotonic`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._held: ExpiringKeys[_Held] = ExpiringKeys(clock)

    async def claim(self, task: Task, keep_s: float) -> Claim:
        """Claim the id for this body and pool and count the try."""
        held = self._held.setdefault(task.id, _Held())
        if held.claim is None:
            held.claim = Task()
            held.claim.CopyFrom(task)
        held.tries += 1
        self._held.keep_at_least(task.id, keep_s)
        mine = held.claim.body_hash == task.body_hash
        return Claim(mine, held.tries, held.state or "claimed", held.claim.pool)

    async def accepted(self, task: str) -> None:
        """An end that was written already stays."""
        held = self._held.setdefault(task, _Held())
        held.state = held.state or "accepted"

    async def ended(self, task: str) -> None:
        """A later record of the task never runs again."""
        self._held.setdefault(task, _Held()).state = "ended"

    async def expire(self, task: str, keep_s: float) -> None:
        """Keep claim and state for exactly `keep_s` seconds from now."""
        self._held.keep(task, keep_s)

    async def get(self, task: str) -> Control | None:
        """None: unknown or forgotten."""
        held = self._held.get(task)
        if held is None:
            return None
        claim = held.claim or Task()
        return Control(
            claim.tenant,
            claim.model,
            claim.pool,
            held.state or "claimed",
            claim.deadline.ToNanoseconds() / 1e9,
            claim.submitted_at.ToNanoseconds() / 1e9,
        )

    async def get_many(self, tasks: Sequence[str]) -> list[Control | None]:
        """As `get`."""
        return [await self.get(task) for task in tasks]

    def forget(self) -> None:
        """What Redis may do to what it was told, on its worst day: all is gone."""
        self._held.clear()
