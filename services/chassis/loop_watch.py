"""How busy is the event loop, and what held it up?"""

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import threading
import time
from types import CodeType, FrameType
from typing import Self, TypeAlias

from services.chassis.background import call_off

Stack: TypeAlias = list[tuple[CodeType, int]]  # code and line of each function, the innermost first

log = logging.getLogger(__name__)

_NAMED = 8  # functions of a stack, the innermost


class LoopWatch:
    """Share of the loop's time that was spent working, and callbacks' stalls, measured by a heartbeat of its own.

    A beat that comes late by more than `stall_s` is a stall: something held the loop for that long. The log says what. A
    callback that began between two beats is late only by what is left of it at the next, so one is missed for certain below
    `stall_s` and caught for certain above `beat_s + stall_s`.

    `busy` is the time that this thread ran or waited for a processor over wall time, smoothed over about a second: on a
    crowded machine a loop can be saturated with half a core.
    """

    def __init__(self, beat_s: float = 0.05, stall_s: float = 0.05) -> None:
        self.busy = 0.0
        self.total_stalls = 0
        self._beat_s = beat_s
        self._stall_s = stall_s
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat(), name="loop watch")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task:
            await call_off([self._task])

    async def _beat(self) -> None:
        onlooker = _Onlooker(self._stall_s, loop_depth=len(inspect.stack(0)) - 1)
        with contextlib.closing(RunQueue()) as queue, contextlib.closing(onlooker):
            wall, cpu, queued = time.monotonic(), time.thread_time(), queue.waited_s()
            while True:
                onlooker.wind()
                await asyncio.sleep(self._beat_s)
                wall_now, cpu_now, queued_now = time.monotonic(), time.thread_time(), queue.waited_s()
                elapsed, worked, waited = wall_now - wall, cpu_now - cpu, queued_now - queued
                # CPU time tells our own stall from one that the machine's other load made.
                if min(elapsed - waited - self._beat_s, worked) > self._stall_s:
                    self.total_stalls += 1
                    holder = onlooker.holder or "nobody known"
                    log.warning("the event loop was held for %.0f ms by %s", worked * 1000, holder)
                self.busy += (min((worked + waited) / elapsed, 1.0) - self.busy) * min(elapsed, 1.0)
                wall, cpu, queued = wall_now, cpu_now, queued_now


class _Onlooker:
    """Which callback the main thread is in, once the process has worked for `patience_s` since the last `wind`.

    A timer of CPU time that hardly ever goes off costs a system call for each beat; a second thread that looks on would take 3 %
    of a busy loop's work, as it wakes and asks for the interpreter. In other threads nothing is seen, and on a crowded machine the
    kernel rings late or not at all. `loop_depth`: what is below a callback on the stack.
    """

    def __init__(self, patience_s: float, loop_depth: int) -> None:
        self._patience_s = patience_s
        self._loop_depth = loop_depth
        self._seen: dict[CodeType, tuple[int, Stack]] = {}  # by callback: how often, and how last
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            signal.signal(signal.SIGPROF, self._see)
            signal.siginterrupt(signal.SIGPROF, False)

    def wind(self) -> None:
        """The loop is there."""
        self._seen = {}
        if self._main:
            signal.setitimer(signal.ITIMER_PROF, self._patience_s, self._patience_s / 2)

    @property
    def holder(self) -> str:
        """The callback that was seen most, by the functions that it was in; an import by who imports."""
        _, stack = max(self._seen.values(), key=lambda seen: seen[0], default=(0, []))
        named = [(code, line) for code, line in stack if not code.co_filename.startswith("<frozen ")]
        return " < ".join(f"{code.co_qualname} ({code.co_filename}:{line})" for code, line in named[:_NAMED])

    def close(self) -> None:
        """Look no more."""
        if self._main:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, signal.SIG_IGN)  # the default, should one be on its way, is the end

    def _see(self, _: int, frame: FrameType | None) -> None:
        stack: Stack = []
        while frame is not None:
            stack.append((frame.f_code, frame.f_lineno))
            frame = frame.f_back
        callback = stack[: -self._loop_depth]
        if callback and callback[-1][0].co_filename != __file__:  # neither the loop nor its watch
            outermost = callback[-1][0]
            times = self._seen[outermost][0] if outermost in self._seen else 0
            self._seen[outermost] = (times + 1, callback)


class RunQueue:
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
