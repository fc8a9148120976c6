"""Where a waiting task stands, for those who ask now and then instead of listening."""

import asyncio
from collections.abc import Callable

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from services.gateway.core.estimates import Place
from services.gateway.core.messages import place
from services.gateway.ports import Signals
from services.gateway.reading.tasks import View

PATIENCE_S = 1.2  # the pool's owner looks at each watched task once a second
KEEP_S = 10.0  # whoever asks will ask again


class _Asked:
    __slots__ = ("known", "place", "pool", "timer")

    def __init__(self, pool: str, timer: asyncio.TimerHandle) -> None:
        self.pool = pool
        self.timer = timer
        self.place = Place()
        self.known = asyncio.Event()


class Places:
    """Asks the pool's owner for the places of tasks. `on_status` takes every status that the owners send and passes it on."""

    def __init__(self, signals: Signals, forward: Callable[[TaskStatus], None]) -> None:
        self._signals = signals
        self._forward = forward
        self._asked: dict[str, _Asked] = {}

    def on_status(self, status: TaskStatus) -> None:
        """The owner told where a task stands."""
        asked = self._asked.get(status.task)
        if asked is not None:
            asked.place = place(status)
            asked.known.set()
        self._forward(status)

    async def of(self, view: View) -> Place:
        """Where the task stands; nothing if it does not wait, or the owner did not tell in time."""
        if view.state != "queued":
            return Place()
        task = view.task
        timer = asyncio.get_running_loop().call_later(KEEP_S, self._forget, task)
        asked = self._asked.get(task)
        if asked is None:
            asked = self._asked[task] = _Asked(view.pool, timer)
            self._signals.watch(view.pool, task)
        else:
            asked.timer.cancel()
            asked.timer = timer
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asked.known.wait()
        except TimeoutError:
            return Place()
        return asked.place

    def _forget(self, task: str) -> None:
        asked = self._asked.pop(task)
        self._signals.unwatch(asked.pool, task)
