"""Callbacks that hold an event loop of this process, by name: a pytest plugin for tests whose services run in the process.

Work and blocking calls count, the machine's stalls do not: a callback holds its loop by CPU time of its thread, or by waiting
for something else than a processor, which the kernel tells apart. What depends on the other tests of the process is left out:
garbage collections, and imports at first use. A test may block its own loop, with a sleep for example that stands for a stall.
"""

import asyncio
import builtins
import contextlib
import gc
import resource
import threading
import time
from asyncio.base_events import _format_handle
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

import pytest

from services.chassis.loop_watch import RunQueue

HELD_S = 0.1  # twice what a service is held to: beside a busy neighbour on the same core the same code takes up to twice the CPU time


@dataclass(frozen=True, slots=True)
class Spent:
    """Time of one thread, seconds: that passed, that it ran, that it was ready to run; and how often it went to sleep."""

    wall_s: float
    cpu_s: float
    queued_s: float
    sleeps: int

    def since(self, before: "Spent") -> str:
        """How a loop was held between the two; "" if it was not.

        >>> Spent(2.5, 0.56, 0.0, 0).since(Spent(2.0, 0.4, 0.0, 0))
        '160 ms of CPU'
        >>> Spent(2.5, 0.4, 0.1, 3).since(Spent(2.0, 0.4, 0.0, 2))
        '400 ms of waiting'
        >>> Spent(2.5, 0.4, 0.0, 2).since(Spent(2.0, 0.4, 0.0, 2))  # the machine's stall
        ''
        """
        cpu_s = self.cpu_s - before.cpu_s
        if cpu_s > HELD_S:
            return f"{cpu_s * 1000:.0f} ms of CPU"
        waited_s = self.wall_s - before.wall_s - cpu_s - (self.queued_s - before.queued_s)
        if waited_s > HELD_S and self.sleeps > before.sleeps:
            return f"{waited_s * 1000:.0f} ms of waiting"
        return ""


class _Meter(threading.local):
    """What the asking thread has spent, without what was left out."""

    _depth = 0
    _wall_s = _cpu_s = 0.0  # left out; the collector may come before `__init__` is through

    def __init__(self) -> None:
        self._queue = _Queue()

    def read(self) -> Spent:
        sleeps = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        return Spent(time.monotonic() - self._wall_s, time.thread_time() - self._cpu_s, self._queue.waited_s(), sleeps)

    def leave_out(self) -> None:
        """What this thread does from now on does not count."""
        if not self._depth:
            self._wall_s -= time.monotonic()
            self._cpu_s -= time.thread_time()
        self._depth += 1

    def go_on(self) -> None:
        """It counts again."""
        self._depth -= 1
        if not self._depth:
            self._wall_s += time.monotonic()
            self._cpu_s += time.thread_time()


class _Queue(RunQueue):
    """Ends with its thread."""

    def __del__(self) -> None:
        self.close()


@contextlib.contextmanager
def watched_loops(test: CodeType | None = None) -> Iterator[list[str]]:
    """Meanwhile each callback of asyncio's own loops that takes more than `HELD_S` is added to the list: its name, file, and how.

    `test`: the code of a coroutine function that may block.
    """
    held: list[str] = []
    meter = _Meter()
    run, bring = asyncio.Handle._run, builtins.__import__

    def measured(handle: asyncio.Handle) -> None:
        before = meter.read()
        run(handle)
        how = meter.read().since(before)
        if how and not ("waiting" in how and _is_of(handle, test)):
            held.append(f"{_format_handle(handle)}: {how}")

    def imported(*arguments: Any, **more: Any) -> Any:
        meter.leave_out()
        try:
            return bring(*arguments, **more)
        finally:
            meter.go_on()

    def collecting(phase: str, info: dict[str, int]) -> None:
        (meter.leave_out if phase == "start" else meter.go_on)()

    gc.callbacks.append(collecting)
    asyncio.Handle._run, builtins.__import__ = measured, imported
    try:
        yield held
    finally:
        asyncio.Handle._run, builtins.__import__ = run, bring
        gc.callbacks.remove(collecting)


def _is_of(handle: asyncio.Handle, code: CodeType | None) -> bool:
    task = getattr(handle._callback, "__self__", None)
    return isinstance(task, asyncio.Task) and code is not None and getattr(task.get_coro(), "cr_code", None) is code


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """No callback holds an event loop while a test runs; what its fixtures need to start and to stop does not count."""
    with watched_loops(getattr(getattr(item, "obj", None), "__code__", None)) as held:
        result = yield
    if held:
        pytest.fail("event loops were held by\n  " + "\n  ".join(held), pytrace=False)
    return result
