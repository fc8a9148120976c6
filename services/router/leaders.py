"""Where does the leader of a follower run?"""

import asyncio
from typing import Final

from services.tasklog.ports import Control, TaskControl

# A follower may be here before its leader, whose own submission is on its way: both got their lookup's answer at the same
# moment. A leader that was not claimed after these pauses was refused or lost with its gateway.
PAUSES_S: Final = (0.0, 0.005, 0.015, 0.03, 0.05, 0.15)


class Leaders:
    """Claims of leaders. However many followers ask at the same time, one of them looks."""

    def __init__(self, control: TaskControl) -> None:
        self._control = control
        self._looking: dict[str, asyncio.Task[Control | None]] = {}

    async def find(self, leader: str) -> Control | None:
        """The leader's claim, or None if there is none. Raises RedisAwayError."""
        looking = self._looking.get(leader)
        if looking is None:
            looking = self._looking[leader] = asyncio.create_task(self._look(leader))
            looking.add_done_callback(lambda _: self._looking.pop(leader))
        return await asyncio.shield(looking)

    async def _look(self, leader: str) -> Control | None:
        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            if known := await self._control.get(leader):
                return known
        return None
