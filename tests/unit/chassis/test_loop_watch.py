"""What the watch of an event loop tells of it, on both kinds of loops."""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from services.chassis.loop_watch import LoopWatch

BOTH = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def on(new_loop: Callable[[], asyncio.AbstractEventLoop], doing: Callable[[LoopWatch], Awaitable[None]]) -> LoopWatch:
    """Run this under a watch."""

    async def watched() -> LoopWatch:
        async with LoopWatch() as watch:
            await asyncio.sleep(0.1)
            await doing(watch)
            return watch

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(watched())


def work_hard(seconds: float) -> None:
    """Hold the processor, by CPU time."""
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass


async def hold(seconds: float) -> None:
    """Hold the loop."""
    work_hard(seconds)


@BOTH
def test_a_held_loop_is_counted_and_its_holder_is_named(new_loop, caplog):
    """The log has function, file and line of who held the loop, and who called it."""

    async def doing(watch: LoopWatch) -> None:
        for held in range(20):  # the kernel's CPU timer misses some on a crowded machine
            await asyncio.create_task(hold(0.2))
            while watch.total_stalls <= held:
                await asyncio.sleep(0.01)
            if "work_hard" in caplog.text:
                return

    assert on(new_loop, doing).total_stalls == len(caplog.records)
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    said = caplog.records[-1].getMessage()
    assert said.startswith("the event loop was held for ")
    assert " by work_hard (" in said
    assert " < hold (" in said
    assert said.count("test_loop_watch.py:") == 2
    assert "runners.py" not in said
    assert "events.py" not in said


@BOTH
def test_a_stall_without_work_is_the_machines(new_loop, caplog):
    """A beat that is late although the thread did not work does not count."""

    async def doing(_: LoopWatch) -> None:
        for _ in range(3):
            time.sleep(0.2)
            await asyncio.sleep(0.1)

    assert on(new_loop, doing).total_stalls == 0
    assert not caplog.records


def test_the_busiest_loop_of_short_callbacks_is_not_held(caplog):
    """Nobody is blamed for work that lets the loop have its turns."""

    async def doing(_: LoopWatch) -> None:
        ends = time.thread_time() + 0.5
        while time.thread_time() < ends:
            work_hard(0.002)
            await asyncio.sleep(0)

    assert on(uvloop.new_event_loop, doing).total_stalls == 0
    assert not caplog.records


def test_a_watch_leaves_no_timer():
    """What looks on ends with the watch; a loop outside the main thread is watched too, without names."""

    async def doing(watch: LoopWatch) -> None:
        work_hard(0.2)
        while not watch.total_stalls:
            await asyncio.sleep(0.01)

    elsewhere = threading.Thread(target=on, args=(asyncio.new_event_loop, doing))
    elsewhere.start()
    elsewhere.join()
    on(asyncio.new_event_loop, doing)
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    work_hard(0.2)


def test_busy_is_the_share_of_time_that_the_loop_worked():
    """A loop that works all the time is busy, one that waits is not."""

    async def doing(watch: LoopWatch) -> None:
        assert watch.busy < 0.5
        while watch.busy < 0.7:
            work_hard(0.02)
            await asyncio.sleep(0)

    on(asyncio.new_event_loop, doing)
