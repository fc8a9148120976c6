"""Work that runs beside its beginner."""

import asyncio
import gc

import pytest

from services.chassis.background import Background, call_off


async def test_what_runs_is_kept_until_it_is_over():
    """Nobody else refers to it; and a failure is not the concern of whoever waits for the end."""
    background, done = Background(), []

    async def work(*, fails: bool) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            gc.collect()
        done.append(fails)
        if fails:
            raise ValueError

    background.spawn(work(fails=False))
    failing = background.spawn(work(fails=True))
    await background.over()
    assert sorted(done) == [False, True]
    with pytest.raises(ValueError):
        failing.result()
    await background.over()


async def test_who_calls_off_waits_for_the_end():
    """What a cancelled task does in its `finally` has happened when the call returns."""
    tidied = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            tidied.append(1)

    tasks = [asyncio.create_task(work()) for _ in range(2)]
    await asyncio.sleep(0)
    await call_off(tasks)
    assert tidied == [1, 1]
    assert all(task.cancelled() for task in tasks)
