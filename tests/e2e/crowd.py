"""Many simulated streams at once, each of whose answers is known to the byte."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from millrace.task.v1.task_pb2 import Message
from services.client import Client
from services.client.core.events import Delta, Done, Restarted
from services.worker.adapters.simulator_engine import SimulatorPrompts
from services.worker.core.simulated_text import simulated_text
from tests.e2e.installation import Installation

SILENT_S = 180.0


@dataclass
class Stream:
    """One answer as its reader sees it."""

    prompt: str
    model: str
    tokens: int
    text: str = ""
    restarts: int = 0
    done: Done | None = None

    async def read(self, client: Client) -> None:
        """To its end."""
        options = {"max_tokens": self.tokens, "deadline_s": 900.0, "cache": "bypass"}
        async with contextlib.aclosing(client.stream(self.prompt, model=self.model, **options)) as events:
            async for event in events:
                match event:
                    case Delta(text=text):
                        self.text += text
                    case Restarted():
                        self.text, self.restarts = "", self.restarts + 1
                    case Done():
                        self.done = event

    @property
    def right(self) -> bool:
        """Completed, every byte once and in order."""
        rendered = SimulatorPrompts().render([Message(role="user", content=self.prompt)])
        completed = self.done is not None and self.done.outcome == "completed"
        return completed and self.text == simulated_text(rendered, self.tokens)

    @property
    def killed(self) -> int:
        """Generations of it that did not come to their end."""
        return self.done.timings.attempts - 1 if self.done else 1


@dataclass
class Crowd:
    """Streams that began together."""

    streams: list[Stream]

    @property
    def killed(self) -> int:
        """Generations that did not come to their end."""
        return sum(stream.killed for stream in self.streams)

    @property
    def wrong(self) -> list[Stream]:
        """Answers that are not what an undisturbed worker gives."""
        return [stream for stream in self.streams if not stream.right]


@contextlib.asynccontextmanager
async def crowd(
    installed: Installation, name: str, size: int, *, model: str, tokens: int, rate: float
) -> AsyncIterator[Crowd]:
    """So many streams of `rate` tokens a second. In the block all of them speak; it ends with their ends."""
    streams = [Stream(f"{name} {number} [[sim rate={rate:g}]]", model, tokens) for number in range(size)]
    async with Client(f"http://{installed.gateway}", installed.key) as client, asyncio.TaskGroup() as readers:
        for stream in streams:
            readers.create_task(stream.read(client))
        async with asyncio.timeout(SILENT_S):
            while not all(stream.text for stream in streams):
                await asyncio.sleep(0.1)
        yield Crowd(streams)
