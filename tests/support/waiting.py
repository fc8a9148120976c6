"""Waiting for a condition, never for a time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

T = TypeVar("T")


async def eventually(condition: Callable[[], T | Awaitable[T]], within_s: float = 10.0, every_s: float = 0.005) -> T:
    """The first true answer of `condition`, which may be a coroutine function. AssertionError if there is none in time."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                answer = condition()
                found = cast("T", await answer if inspect.isawaitable(answer) else answer)
                if found:
                    return found
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(f"it did not come true within {within_s} s") from None


def wait_until(condition: Callable[[], T], within_s: float = 20.0, every_s: float = 0.05) -> T:
    """The same for tests without an event loop."""
    ends = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < ends, f"it did not come true within {within_s} s"
        time.sleep(every_s)
    return found
