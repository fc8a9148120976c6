"""A whole worker in the test's process: memory adapters, the simulated engine, a loopback dispatcher."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Self

from services.pools.core.ownership import Owner
from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.adapters.memory_usage_log import MemoryUsageLog
from services.tasklog.core.entries import Delta, Terminal
from services.tasklog.core.reading import Cursor
from services.tasklog.ending import Destinations
from services.tasklog.ports import TokenLog
from services.worker.adapters.memory_frame_publisher import MemoryFramePublisher
from services.worker.adapters.simulator_engine import Pacing, SimulatorEngine, SimulatorPrompts
from services.worker.attach import Attach
from services.worker.core.attempt_plan import Patience
from services.worker.core.tick import Tick
from services.worker.flusher import Flusher
from services.worker.ports import Engine, FramePublisher, Prompts
from services.worker.worker import Worker
from tests.support.fake_dispatcher import FakeDispatcher
from tests.support.waiting import eventually


class WorkerRoom:
    """A worker and what it touches. `owner` is where its lookup points; change it and the worker follows."""

    def __init__(
        self,
        dispatcher: FakeDispatcher,
        *,
        name: str = "w1",
        slots: int = 4,
        log: TokenLog | None = None,
        usage: MemoryUsageLog | None = None,
        frames: FramePublisher | None = None,
        engine: Engine | None = None,
        prompts: Prompts | None = None,
        tick_s: float = 0.005,
        patience: Patience | None = None,
        heartbeat_s: float = 1.0,
    ) -> None:
        self.owner: Owner | None = dispatcher.owner
        self.log = log or MemoryTokenLog()
        self.usage = usage or MemoryUsageLog()
        self.frames = frames or MemoryFramePublisher()
        self.engine = engine or SimulatorEngine(Pacing(tokens_per_s=500.0, stall_s=60.0))
        self.attach = Attach(self._find)
        flusher = Flusher(self.log, self.frames, Tick(tick_s, 0.05), lambda: 0.0)
        self.worker = Worker(
            name=name,
            pool="sim",
            boot=hash(name) & 0xFFFF | 1,
            slots=slots,
            to=Destinations(self.log, self.usage),
            engine=self.engine,
            prompts=prompts or SimulatorPrompts(),
            flusher=flusher,
            patience=patience or Patience(first_token_s=30.0, stall_s=5.0),
            heartbeat_s=heartbeat_s,
            send=self.attach.send,
            reattach=self.attach.reattach,
            busy=lambda: 0.0,
        )
        self._work: list[Coroutine[Any, Any, None]] = [
            flusher.run(),
            self.worker.tend(),
            self.worker.watch_engine(),
            self.attach.run(self.worker),
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def _find(self) -> Owner | None:
        return self.owner

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(work) for work in self._work]
        await eventually(lambda: self.worker.attached and self.worker.engine_ready)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.die()

    def logged(self, task: str) -> int:
        """Bytes of a running task's text that are in the log."""
        run = self.worker._runs.get(task)
        return run.answer.logged if run else 0

    async def die(self) -> None:
        """Be gone, in the middle of whatever it does."""
        runs = [t for run in self.worker._runs.values() for t in (run.job, run.pump) if t]
        for task in (*self._tasks, *runs):
            task.cancel()
        for result in await asyncio.gather(*self._tasks, *runs, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        self.worker._runs.clear()


async def read(log: TokenLog, task: str) -> tuple[str, Terminal | None]:
    """What a late reader sees: the text, and the end if there is one."""
    cursor, text, end = Cursor(), "", None
    entries = await log.read(task)
    for event in cursor.take_log(entries):
        text += getattr(event, "text", "")
    if cursor.ended:
        end = next(e for e in entries if isinstance(e, Terminal) and e.gen == cursor.gen)
    return text, end


async def deltas(log: TokenLog, task: str) -> list[Delta]:
    """The text's entries."""
    return [entry for entry in await log.read(task) if isinstance(entry, Delta)]
