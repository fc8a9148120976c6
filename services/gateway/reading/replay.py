"""Replay: what readers get from the token log."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from services.chassis import metrics
from services.chassis.clock import monotonic
from services.gateway.core.compaction import merged, pieces
from services.gateway.core.following import Follow, is_echo, source_of
from services.gateway.reading.reader import Feed, Reader
from services.tasklog.core.entries import Entry, Header, Terminal
from services.tasklog.core.reading import Cursor, Event, Restarted
from services.tasklog.ports import RedisAwayError, TaskControl, TokenLog

log = logging.getLogger(__name__)

LOOK_S = 5.0  # how long a log may be missing before the task's state is asked for
ECHO_S = 0.05  # a leader's end is echoed into its followers' logs within a few milliseconds


class Stage(Protocol):
    """What replaying a log makes a reader do."""

    def show(self, reader: Reader, events: Sequence[Event]) -> None:
        """Give the events to the sink, and pause the reader if that filled it."""
        ...

    def pause(self, reader: Reader) -> None:
        """The sink is full: the rest is read when it drained."""
        ...

    def follow(self, reader: Reader, leader: str) -> None:
        """The text is in the log of another task."""
        ...

    def follow_no_more(self, reader: Reader) -> None:
        """It is in the task's own."""
        ...

    def gone(self, reader: Reader) -> None:
        """There is nothing to read any more."""
        ...


class Replay:
    """Reads logs for readers. `again` begins another read of a reader's log."""

    def __init__(
        self, token_log: TokenLog, control: TaskControl, stage: Stage, again: Callable[[Reader], None]
    ) -> None:
        self._log = token_log
        self._control = control
        self._stage = stage
        self._again = again

    async def run(self, reader: Reader, *, repair: bool) -> None:
        """Read until nothing asked for more. `repair`: what is found now was not told by a frame."""
        try:
            while reader.open and not reader.paused:
                reader.again = False
                before = reader.cursor.offset
                await self._read(reader)
                if repair and (reader.cursor.offset != before or not reader.open):
                    metrics.gateway_watchdog_repairs.inc()
                if not reader.again:
                    break
        except RedisAwayError:
            log.debug("log of %s: Redis is away, the sweep reads again", reader.task)
        finally:
            reader.reading = False
            reader.heard = monotonic()

    async def _read(self, reader: Reader) -> None:
        if reader.leader is not None:
            await self._read_following(reader)
            return
        cursor = reader.cursor
        entries = await self._log.read(reader.task, cursor.after if cursor.attempt else None)
        if any(isinstance(e, Header) and e.follows for e in entries):
            await self._read_following(reader)
        elif entries:
            reader.missing_since = 0.0
            self._show_log(reader, entries)
        else:
            await self._look(reader)

    async def _read_following(self, reader: Reader) -> None:
        """A task that joined a twin: its own log says whose text it shows."""
        own = await self._log.read(reader.task)
        source = source_of(own)
        if not reader.open:
            return
        if isinstance(source, Follow) and (reader.leader is None or reader.leader.task != source.leader):
            self._stage.follow(reader, source.leader)
        elif isinstance(source, Follow) or not own:  # without a log its record is on the way to the dispatcher
            assert reader.leader is not None
            if await self._read_leader(
                reader, reader.leader
            ):  # its echo is being written; the sweep would find it late
                asyncio.get_running_loop().call_later(ECHO_S, self._again, reader)
        else:
            self._show_own(reader, own)

    async def _read_leader(self, reader: Reader, leader: Feed) -> bool:
        """Show the leader's text, not its end. Did the leader end?"""
        cursor = reader.cursor
        entries = await self._log.read(leader.task, cursor.after if cursor.attempt else None)
        if reader.leader is leader:
            self._show_log(reader, [e for e in entries if not isinstance(e, Terminal)])
        return any(isinstance(e, Terminal) for e in entries)

    def _show_own(self, reader: Reader, own: Sequence[Entry]) -> None:
        """The text is in the reader's own log. If the task was promoted, what the leader's log had does not count."""
        if reader.leader is not None:
            newest = max((e.gen for e in own if not isinstance(e, Header)), default=0)
            if reader.cursor.offset and not newest:
                return  # what was shown stands until there is something else
            self._stage.follow_no_more(reader)
            # Attempts are numbered per task, so only an echo of the leader's answer makes equal gens the same text.
            if newest == reader.cursor.gen and is_echo(own):
                reader.cursor = Cursor(newest, reader.cursor.offset)
            elif reader.cursor.offset:
                self._restart(reader, newest)
            else:
                reader.cursor = Cursor()
        self._show_log(reader, own)

    def _show_log(self, reader: Reader, entries: Sequence[Entry]) -> None:
        """Show the newest text of the log beyond the cursor, compacted; stop where the sink is full."""
        newest = max((e.gen for e in entries if not isinstance(e, Header)), default=0)
        text = [e for e in entries if not isinstance(e, Header) and e.gen == newest]
        if newest < reader.cursor.gen and any(isinstance(e, Terminal) for e in text):
            # The client names a text that is no more, or never was, and the task ended with this one.
            self._restart(reader, newest)
        for piece in pieces(text):
            if not reader.open or reader.paused:
                return
            if not reader.sink.writable:
                self._stage.pause(reader)
                return
            self._stage.show(reader, merged(reader.cursor.take_log(piece)))

    def _restart(self, reader: Reader, gen: int) -> None:
        reader.cursor = Cursor(gen)
        self._stage.show(reader, [Restarted(gen)])

    async def _look(self, reader: Reader) -> None:
        """Nothing is there. A task that ended and whose log is gone can be read no more; any other has yet to go on."""
        at = monotonic()
        if not reader.missing_since:
            reader.missing_since = at
        elif at - reader.missing_since >= LOOK_S:
            reader.missing_since = at
            control = await self._control.get(reader.task)
            if control is not None and control.state == "ended" and not await self._log.read(reader.task):
                self._stage.gone(reader)
