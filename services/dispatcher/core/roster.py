"""Which workers are there, what do they run, who can take more?

A worker is known by its name; its process by its boot id; its stream by a number of ours, since a broken stream may be noticed
after the next one was opened. Nothing is sent to a worker beyond the credits it gave on its present stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

SILENCE_S: Final = 3.0  # three heartbeats


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process. `running` holds the attempt of each task it was given."""

    name: str
    boot: int
    stream: int
    slots: int
    heard_at: float
    draining: bool = False
    credits: int = 0
    broken_at: float | None = None
    running: dict[str, int] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        """Can it be spoken to?"""
        return self.broken_at is None


class Roster:
    """The workers of one pool. One that is silent, or whose stream is broken, for `silence_s` is lost."""

    def __init__(self, silence_s: float = SILENCE_S) -> None:
        self._silence_s = silence_s
        self._workers: dict[str, Worker] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, name: str) -> Worker | None:
        """The worker of that name, connected or not."""
        return self._workers.get(name)

    def hello(
        self, name: str, boot: int, stream: int, slots: int, now: float, *, draining: bool = False
    ) -> tuple[Worker, Worker | None]:
        """A stream began. Returns the worker, and the process that it replaced under the same name, whose tasks are lost."""
        known = self._workers.get(name)
        replaced = known if known and known.boot != boot else None
        if known is None or replaced:
            known = self._workers[name] = Worker(name, boot, stream, slots, now)
        known.stream, known.slots, known.draining = stream, slots, draining
        known.credits, known.broken_at, known.heard_at = 0, None, now
        return known, replaced

    def broke(self, name: str, stream: int, now: float) -> None:
        """A stream ended. Ignored if the worker has a newer one."""
        worker = self._workers.get(name)
        if worker and worker.stream == stream:
            worker.broken_at, worker.credits = now, 0

    def lost(self, now: float) -> list[Worker]:
        """Workers that were silent, or whose stream was broken, for too long. They are forgotten."""
        lost = [
            w
            for w in self._workers.values()
            if now - (w.heard_at if w.broken_at is None else w.broken_at) > self._silence_s
        ]
        for worker in lost:
            del self._workers[worker.name]
        return lost

    def free(self, prefer: str = "", avoid: str = "") -> Worker | None:
        """A worker that takes a task: the preferred one if it can, else the one with the most credits.

        The one to avoid gets it only if nobody else can.
        """
        preferred = self._workers.get(prefer)
        if preferred and preferred.credits > 0:
            return preferred
        best: Worker | None = None
        for worker in self._workers.values():
            if worker.credits > 0 and (best is None or self._rank(worker, avoid) > self._rank(best, avoid)):
                best = worker
        return best

    @staticmethod
    def _rank(worker: Worker, avoid: str) -> tuple[bool, int]:
        return worker.name != avoid, worker.credits

    @property
    def slots(self) -> int:
        """Slots of the workers that take work."""
        return sum(w.slots for w in self._workers.values() if w.connected and not w.draining)

    @property
    def active(self) -> int:
        """Workers that take work."""
        return sum(1 for w in self._workers.values() if w.connected and not w.draining)

    @property
    def busy(self) -> int:
        """Tasks that run."""
        return sum(len(w.running) for w in self._workers.values())
