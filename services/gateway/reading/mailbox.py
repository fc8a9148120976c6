"""Sinks for transports that pull: SSE, OpenAI's shape, gRPC. Events wait in a short queue, and beyond it in the log."""

import asyncio
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from millrace.task.v1.task_pb2 import Outcome
from services.gateway.reading.reader import Reader
from services.gateway.reading.readers import Readers

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


@dataclass(slots=True)
class Leaving:
    """The gateway leaves; the task goes on and can be read at another one."""


Event: TypeAlias = Delta | Restarted | Done | Gone | Leaving | TaskStatus


class Mailbox:
    """One reader's events, for one consumer that may be slow. Implements `Sink`.

    `resumable`: its client can go on at another gateway from where it was.
    """

    def __init__(self, readers: Readers, *, resumable: bool) -> None:
        self.resumable = resumable
        self._readers = readers
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
                reader, self._reader = self._reader, None
                if reader is not None:
                    self._readers.resume(reader)
        return event

    def leave(self) -> None:
        """Nothing comes any more, because the gateway leaves."""
        self._put(Leaving())

    def _put(self, event: Event) -> None:
        self._events.append(event)
        self._wake.set()

    def on_text(self, reader: Reader, gen: int, offset: int, text: str) -> None:
        """One delta."""
        self._put(Delta(gen, offset, text))
        self._size += len(text)
        if self._size > HIGH_WATER:
            self.writable = False
            self._reader = reader

    def on_restarted(self, reader: Reader, gen: int) -> None:
        """The text so far was lost."""
        self._put(Restarted(gen))

    def on_end(self, reader: Reader, gen: int, offset: int, outcome: Outcome) -> None:
        """The end."""
        self._put(Done(gen, offset, outcome))

    def on_status(self, reader: Reader, status: TaskStatus) -> None:
        """Where a waiting task stands; only the latest is kept."""
        if self._events and isinstance(self._events[-1], TaskStatus):
            self._events.pop()
        self._put(status)

    def on_gone(self, reader: Reader, code: Literal["unknown", "expired"]) -> None:
        """Nothing is left to read."""
        self._put(Gone(code))


class Mailboxes:
    """Makes mailboxes, and knows those in use, so that their consumers can be told when the gateway leaves."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._open: weakref.WeakSet[Mailbox] = weakref.WeakSet()

    def open(self, *, resumable: bool) -> Mailbox:
        """A mailbox; it is over when nobody holds it."""
        mailbox = Mailbox(self._readers, resumable=resumable)
        self._open.add(mailbox)
        return mailbox

    def leave(self, *, all_of_them: bool) -> None:
        """Send the consumers away: those whose clients can go on elsewhere, at last all."""
        for mailbox in tuple(self._open):
            if mailbox.resumable or all_of_them:
                mailbox.leave()
