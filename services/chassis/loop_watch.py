"""How busy is the event loop, and what held it up?"""

import asyncio
import contextlib
import os
import time
from typing import Self


class LoopWatch:
    """Share of the loop's time that was spent working, and callbacks' stalls, measured by a heartbeat of its own.

    A beat that comes late by more than `stall_s` is a stall: something held the loop for that long. `busy` is the time that
    this thread ran or waited for a processor over wall time, smoothed over about a second: on a crowded machine a loop can
    be saturated with half a core.
    """

    def __init__(self, beat_s: float = 0.05, stall_s: float = 0.05) -> None:
        self.busy = 0.0
        self.stalls: list[float] = []  # the last 100, seconds each
        self.total_stalls = 0
        self._beat_s = beat_s
        self._stall_s = stall_s
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat(), name="loop watch")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task:
            self._task.cancel()

    async def _beat(self) -> None:
        with contextlib.closing(_RunQueue()) as queue:
            wall, cpu, queued = time.monotonic(), time.thread_time(), queue.waited_s()
            while True:
                await asyncio.sleep(self._beat_s)
                wall_now, cpu_now, queued_now = time.monotonic(), time.thread_time(), queue.waited_s()
                elapsed = wall_now - wall
                late = elapsed - self._beat_s
                # CPU time tells our own stall from one that the machine's other load made.
                if late > self._stall_s and cpu_now - cpu > self._stall_s:
                    self.total_stalls += 1
                    self.stalls.append(late)
                    del self.stalls[:-100]
                wanted = cpu_now - cpu + queued_now - queued
                self.busy += (min(wanted / elapsed, 1.0) - self.busy) * min(elapsed, 1.0)
                wall, cpu, queued = wall_now, cpu_now, queued_now


class _RunQueue:
    """How long the thread that made this has ever waited for a processor."""

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def waited_s(self) -> float:
        """Seconds; 0 where the kernel does not tell."""
        if self._file < 0:
            return 0.0
        try:
            return int(os.pread(self._file, 64, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0

    def close(self) -> None:
        """Once it is not asked any more."""
        if self._file >= 0:
            os.close(self._file)
