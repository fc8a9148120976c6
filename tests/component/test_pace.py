"""Things to send gather while a loop is busy, and go at once when it was idle."""

import asyncio

from services.chassis.pace import Pace
from tests.support.waiting import eventually


async def wakes(pace: Pace, seen: list[float]) -> None:
    while True:
        await pace.wait()
        seen.append(asyncio.get_running_loop().time())


async def watched(gap_s: float) -> tuple[Pace, list[float], asyncio.Task[None]]:
    pace, seen = Pace(lambda: gap_s), []
    return pace, seen, asyncio.create_task(wakes(pace, seen))


async def test_the_first_after_a_pause_goes_at_once():
    """An idle loop adds no latency."""
    pace, seen, task = await watched(gap_s=10.0)
    pace.wake()
    await asyncio.sleep(0.01)
    assert len(seen) == 1
    task.cancel()


async def test_what_comes_within_the_gap_shares_the_next_wake():
    """Many wishes, one wake, not before the gap is over."""
    pace, seen, task = await watched(gap_s=0.05)
    pace.wake()
    await asyncio.sleep(0)
    for _ in range(20):
        pace.wake()
        await asyncio.sleep(0.001)
    await eventually(lambda: len(seen) >= 2)
    assert len(seen) == 2
    assert seen[1] - seen[0] >= 0.049
    task.cancel()


async def test_a_wish_that_can_wait_is_overtaken_by_one_that_cannot():
    """The earlier due time counts."""
    pace, seen, task = await watched(gap_s=0.0)
    pace.wake(within_s=10.0)
    await asyncio.sleep(0.01)
    assert seen == []
    pace.wake()
    await asyncio.sleep(0.01)
    assert len(seen) == 1
    task.cancel()
