"""Where a waiting task stands, for those who ask once instead of listening."""

import asyncio
from collections.abc import Callable

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus

from services.gateway.core.messages import place
from services.gateway.ports import Signals

PATIENCE_S = 0.3


class Places:
    """Asks the pool's owner for the place of one task. `on_status` gets every status that the owners send."""

    def __init__(self, signals: Signals, forward: Callable[[TaskStatus], None]) -> None:
        self._signals = signals
        self._forward = forward
        self._asked: dict[str, asyncio.Future[TaskStatus]] = {}

    def on_status(self, status: TaskStatus) -> None:
        """The owner told where a task stands."""
        asked = self._asked.get(status.task)
        if asked is not None and not asked.done():
            asked.set_result(status)
        self._forward(status)

    async def of(self, task: str, pool: str) -> tuple[int | None, float | None]:
        """Position and seconds until it starts; None for what the owner did not tell in time."""
        asked = self._asked.get(task)
        if asked is None:
            asked = self._asked[task] = asyncio.get_running_loop().create_future()
            self._signals.watch(pool, task)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return place(await asyncio.shield(asked))
        except TimeoutError:
            return None, None
        finally:
            if self._asked.get(task) is asked:
                del self._asked[task]
                self._signals.unwatch(pool, task)
