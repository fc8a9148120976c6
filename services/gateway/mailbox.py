"""A sink for transports that pull: SSE, OpenAI streams, gRPC. Events wait in a short queue, and beyond it in the log."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from millrace.task.v1.task_pb2 import Outcome
from services.gateway.readers import Reader, Readers

HIGH_WATER = 64 * 1024
LOW_WATER = 16 * 1024


@dataclass(slots=True)
class Delta:
    """Text; `offset` is after it."""

    gen: int
    offset: int
    text: str


@dataclass(slots=True)
class Restarted:
    """The text so far was lost."""

    gen: int


@dataclass(slots=True)
class Done:
    """The end."""

    gen: int
    offset: int
    outcome: Outcome


@dataclass(slots=True)
class Gone:
    """Nothing is left to read."""

    code: Literal["unknown", "expired"]


Event: TypeAlias = Delta | Restarted | Done | Gone | TaskStatus


class Mailbox:
    """One reader's events, for one consumer that may be slow. Implements `Sink`."""

    def __init__(self, readers: Readers, high_water: int = HIGH_WATER) -> None:
        self._readers = readers
        self._high_water = high_water
        self._events: deque[Event] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._reader: Reader | None = None
        self.writable = True

    async def take(self, patience_s: float | None = None) -> Event | None:
        """The next event; None after `patience_s` seconds of silence."""
        if not self._events:
            self._wake.clear()
            try:
                async with asyncio.timeout(patience_s):
                    await self._wake.wait()
            except TimeoutError:
                return None
        event = self._events.popleft()
        if isinstance(event, Delta):
            self._size -= len(event.text)
            if not self.writable and self._size < LOW_WATER:
                self.writable = True
                if self._reader is not None:
                    self._readers.resume(self._reader)
        return event

    def _put(self, reader: Reader, event: Event) -> None:
        self._reader = reader
        self._events.append(event)
        self._wake.set()

    def on_text(self, reader: Reader, gen: int, offset: int, text: str) -> None:
        """One delta."""
        self._put(reader, Delta(gen, offset, text))
        self._size += len(text)
        if self._size > self._high_water:
            self.writable = False

    def on_restarted(self, reader: Reader, gen: int) -> None:
        """The text so far was lost."""
        self._put(reader, Restarted(gen))

    def on_end(self, reader: Reader, gen: int, offset: int, outcome: Outcome) -> None:
        """The end."""
        self._put(reader, Done(gen, offset, outcome))

    def on_status(self, reader: Reader, status: TaskStatus) -> None:
        """Where a waiting task stands; only the latest is kept."""
        if self._events and isinstance(self._events[-1], TaskStatus):
            self._events.pop()
        self._put(reader, status)

    def on_gone(self, reader: Reader, code: Literal["unknown", "expired"]) -> None:
        """Nothing is left to read."""
        self._put(reader, Gone(code))
