"""Work that runs beside its beginner: kept until it is over, then waited for or called off."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Tasks of which nobody waits for a single one. The event loop alone would lose them: it holds them only weakly."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin the work."""
        return self.keep(asyncio.create_task(work))

    def keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Keep what somebody else began."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        """Call everything off, without waiting for its end."""
        for task in self._tasks:
            task.cancel()

    async def over(self) -> None:
        """Wait until all that runs now has ended, however it ends."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def call_off(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel these, and wait until they have ended."""
    ending = tuple(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
