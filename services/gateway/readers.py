"""Readers: who reads which task, on any transport, from frames and the log to one ordered text with one end.

A reader is a cursor and a sink. All readers of a task in this process share its feed: one handle, one route. Live frames come
by handle and are hints; whatever does not connect is read from the log:

* a gap, and the first read after a route was written (attach, then read);
* silence: one sweep re-reads each unfinished task that was silent for a second, waiting ones too;
* a reader whose sink was full: frames are dropped until it drained, then the log gives what it missed, compacted;
* another Redis run id: routes are written again, then the log is read.

Frames that arrive before the acknowledgment went out are held back until `release`.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Literal, Protocol

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from millrace.frames.v1.frames_pb2 import Frame
from millrace.task.v1.task_pb2 import Outcome, Route
from services.chassis import metrics
from services.chassis.clock import monotonic
from services.gateway.core.compaction import merged, pieces
from services.gateway.core.following import Follow, is_echo, source_of
from services.gateway.ports import Signals
from services.tasklog.core.entries import Entry, Header, Terminal
from services.tasklog.core.reading import GAP, Cursor, Event, Restarted, Text
from services.tasklog.ports import RedisAwayError, TaskControl, TokenLog

log = logging.getLogger(__name__)

SILENCE_S = 1.0  # a task silent for longer is read from the log
SWEEP_S = 0.25
COALESCE_S = 0.05  # how long text waits for more while the core is busy
BUSY = 0.6
EARLY_FRAMES = 64  # held before the acknowledgment; more are left to the log
ROUTE_S = 3600.0
LOOK_S = 5.0  # how long a log may be missing before the task's state is asked for
ECHO_S = 0.05  # a leader's end is echoed into its followers' logs within a few milliseconds


class Sink(Protocol):
    """Where a reader's text goes: a session, an SSE response, a gRPC stream. None of the methods waits."""

    @property
    def writable(self) -> bool:
        """False above one high-water mark; the sink calls `Readers.resume` when it drained."""
        ...

    def on_text(self, reader: "Reader", gen: int, offset: int, text: str) -> None:
        """Text; `offset` is after it."""
        ...

    def on_restarted(self, reader: "Reader", gen: int) -> None:
        """The text so far was lost: from offset 0 again."""
        ...

    def on_end(self, reader: "Reader", gen: int, offset: int, outcome: Outcome) -> None:
        """The end; the reader is closed."""
        ...

    def on_status(self, reader: "Reader", status: TaskStatus) -> None:
        """Where the task stands in its queue."""
        ...

    def on_gone(self, reader: "Reader", code: Literal["unknown", "expired"]) -> None:
        """There is nothing to read any more; the reader is closed."""
        ...


class Feed:
    """What this process hears of one task: the handle in its route, and who listens."""

    __slots__ = ("attached", "handle", "readers", "task", "wanted", "watched")

    def __init__(self, task: str, handle: int) -> None:
        self.task = task
        self.handle = handle
        self.readers: tuple[Reader, ...] = ()
        self.wanted = False  # the route shall stand in Redis, not only in the task's record
        self.attached = False
        self.watched = ""  # the pool whose owner was asked for the task's place


class Reader:
    """One reader of one task. `tag` belongs to the sink."""

    __slots__ = (
        "again",
        "cursor",
        "early",
        "feed",
        "heard",
        "leader",
        "missing_since",
        "open",
        "paused",
        "pending",
        "reading",
        "shown",
        "sink",
        "submitted_at",
        "tag",
    )

    def __init__(self, feed: Feed, sink: Sink, cursor: Cursor, *, held: bool) -> None:
        self.feed = feed
        self.leader: Feed | None = None  # of the twin whose text this task shares
        self.sink = sink
        self.cursor = cursor
        self.early: list[tuple[Feed, Frame]] | None = [] if held else None
        self.open = True
        self.paused = False  # the sink is full
        self.reading = self.again = False  # a read is under way; another shall follow
        self.shown = False
        self.pending: list[str] | None = None  # text that waits for more
        self.submitted_at = 0.0  # 0: not submitted here
        self.heard = monotonic()
        self.missing_since = 0.0
        self.tag: object = None

    @property
    def task(self) -> str:
        """The task's id."""
        return self.feed.task


class Readers:
    """All readers of this process. `address` and `boot` name its frames server in routes."""

    def __init__(
        self,
        token_log: TokenLog,
        control: TaskControl,
        signals: Signals,
        *,
        address: str,
        boot: int,
        busy: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._log = token_log
        self._control = control
        self._signals = signals
        self._address = address
        self._boot = boot
        self._busy = busy
        self._handles = itertools.count(1)
        self._by_handle: dict[int, Feed] = {}
        self._by_task: dict[str, Feed] = {}
        self._pending: list[Reader] = []
        self._work: set[asyncio.Task[None]] = set()
        self._run_id = ""
        self.on_ended: Callable[[str], None] = lambda _: None  # told of each task whose end a reader saw

    def of(self, task: str) -> tuple[Reader, ...]:
        """Readers of a task in this process."""
        feed = self._by_task.get(task)
        return tuple(r for r in feed.readers if r.feed is feed) if feed else ()

    # -- life of a reader -----------------------------------------------------------------------------------------------

    def open(self, task: str, sink: Sink, *, gen: int = 0, offset: int = 0, held: bool = False) -> Reader:
        """A new reader. `held`: nothing reaches the sink before `release`. Without a route in Redis until `attach`."""
        feed = self._feed(task)
        reader = Reader(feed, sink, Cursor(gen, offset), held=held)
        feed.readers += (reader,)
        metrics.gateway_readers.inc()
        return reader

    def route(self, feed: Feed) -> Route:
        """What workers need to reach the feed."""
        return Route(address=self._address, boot=self._boot, handle=feed.handle)

    def release(self, reader: Reader) -> None:
        """The acknowledgment went out: what overtook it follows now."""
        early, reader.early = reader.early, None
        reader.heard = monotonic()
        for feed, frame in early or ():
            self._take_frame(reader, feed, frame)
        if early is not None and len(early) >= EARLY_FRAMES:
            self.read(reader)

    def attach(self, reader: Reader) -> None:
        """Write the route, then read the log: the writer logs, then reads the routes, so one of the two sees the other."""
        reader.feed.wanted = True
        self._spawn(self._attach(reader.feed, reader))

    def watch(self, reader: Reader, pool: str) -> None:
        """Ask for the place of a task whose record names another reader."""
        if pool and not reader.feed.watched:
            reader.feed.watched = pool
            self._signals.watch(pool, reader.task)

    def follow(self, reader: Reader, leader: str) -> None:
        """The text is in the log of a running twin: read it there, live too, until the task's own end."""
        self._leave_leader(reader)
        reader.leader = feed = self._feed(leader)
        feed.readers += (reader,)
        feed.wanted = True
        self._spawn(self._attach(feed, reader))

    def close(self, reader: Reader) -> None:
        """Read no more. Closing twice does nothing."""
        if reader.open:
            reader.open = False
            reader.pending = None
            self._leave_leader(reader)
            self._leave(reader.feed, reader)
            metrics.gateway_readers.dec()

    def resume(self, reader: Reader) -> None:
        """The sink drained: what was not forwarded comes from the log."""
        if reader.paused:
            reader.paused = False
            self.read(reader)

    # -- what comes in --------------------------------------------------------------------------------------------------

    def on_frames(self, boot: int, frames: Sequence[Frame]) -> None:
        """One batch from a worker."""
        if boot != self._boot:
            metrics.gateway_stale_batches.inc()
            return
        metrics.gateway_frames.inc(len(frames))
        at = monotonic()
        for frame in frames:
            feed = self._by_handle.get(frame.handle)
            if feed is None:
                continue
            for reader in feed.readers:
                if reader.early is None:
                    reader.heard = at
                    self._take_frame(reader, feed, frame)
                elif len(reader.early) < EARLY_FRAMES:
                    reader.early.append((feed, frame))

    def on_status(self, status: TaskStatus) -> None:
        """The dispatcher told where a task stands."""
        for reader in self.of(status.task):
            if reader.early is None:
                reader.sink.on_status(reader, status)

    def read(self, reader: Reader, *, repair: bool = False) -> None:
        """Read the log; at most one read per reader is under way. `repair`: text found now was not told by a frame."""
        if reader.reading:
            reader.again = True
        elif reader.open:
            reader.reading = True
            self._spawn(self._read(reader, repair=repair))

    async def run_watchdog(self) -> None:
        """Until cancelled: the watchdog."""
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.sweep()

    async def sweep(self) -> None:
        """Read each silent task; attach everybody again after a change of Redis."""
        run_id = self._log.run_id
        changed = bool(self._run_id and run_id and run_id != self._run_id)
        self._run_id = run_id or self._run_id
        horizon = monotonic() - SILENCE_S
        silent = 0
        for feed in tuple(self._by_task.values()):
            if changed:
                feed.wanted, feed.attached = True, False
            attach = feed.wanted and not feed.attached
            for reader in feed.readers:
                idle = reader.heard <= horizon and not reader.paused and not reader.reading
                if reader.early is not None or not (idle or changed):
                    continue
                if attach:
                    self._spawn(self._attach(feed, reader))
                else:
                    self.read(reader, repair=True)
                silent += 1
                if not silent % 100:  # a thousand reads begun at once would hold up the loop
                    await asyncio.sleep(0)

    # -- frames ---------------------------------------------------------------------------------------------------------

    def _take_frame(self, reader: Reader, feed: Feed, frame: Frame) -> None:
        if reader.paused or not reader.open:
            return
        outcome = frame.outcome if frame.HasField("outcome") else None
        if reader.leader is not None and (outcome is not None or feed is not reader.leader):
            # Its own log has something new, it was promoted for example; or the leader ended and its own end is near.
            self.read(reader)
            return
        events = reader.cursor.take_frame(frame.attempt, frame.gen, frame.start, frame.end, frame.text, outcome)
        if events is GAP:
            metrics.gateway_gaps.inc()
            self.read(reader)
        else:
            self._show(reader, events)

    def _show(self, reader: Reader, events: Iterable[Event]) -> None:
        sink = reader.sink
        for event in events:
            if isinstance(event, Text):
                if reader.pending is not None:
                    reader.pending.append(event.text)
                elif reader.shown and self._busy() > BUSY:
                    self._hold(reader, event.text)
                else:
                    if not reader.shown:
                        self._first_text(reader)
                    sink.on_text(reader, event.gen, event.offset, event.text)
            elif isinstance(event, Restarted):
                reader.pending = None
                sink.on_restarted(reader, event.gen)
            else:
                self._flush(reader)
                self.close(reader)
                self.on_ended(reader.task)
                sink.on_end(reader, event.gen, event.offset, event.outcome)
                return
        if not sink.writable:
            self._flush(reader)
            self._pause(reader)

    def _first_text(self, reader: Reader) -> None:
        """Goes out at once, however busy the core: somebody waits for it."""
        reader.shown = True
        if reader.submitted_at:
            metrics.gateway_ttft.observe(monotonic() - reader.submitted_at)

    def _hold(self, reader: Reader, text: str) -> None:
        """Let text gather: while the core is busy one delta with more text is cheaper than several."""
        reader.pending = [text]
        if not self._pending:
            asyncio.get_running_loop().call_later(COALESCE_S, self._flush_all)
        self._pending.append(reader)

    def _flush_all(self) -> None:
        readers, self._pending = self._pending, []
        for reader in readers:
            self._flush(reader)

    def _flush(self, reader: Reader) -> None:
        pending, reader.pending = reader.pending, None
        if pending:
            cursor = reader.cursor
            reader.sink.on_text(reader, cursor.gen, cursor.offset, "".join(pending))

    def _pause(self, reader: Reader) -> None:
        if not reader.paused:
            reader.paused = True
            metrics.gateway_slow_readers.inc()

    # -- log ------------------------------------------------------------------------------------------------------------

    async def _read(self, reader: Reader, *, repair: bool) -> None:
        try:
            while reader.open and not reader.paused:
                reader.again = False
                before = reader.cursor.offset
                await self._read_once(reader)
                if repair and (reader.cursor.offset != before or not reader.open):
                    metrics.gateway_watchdog_repairs.inc()
                if not reader.again:
                    break
        except RedisAwayError:
            log.debug("log of %s: Redis is away, the sweep reads again", reader.task)
        finally:
            reader.reading = False
            reader.heard = monotonic()

    async def _read_once(self, reader: Reader) -> None:
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
            self.follow(reader, source.leader)
        elif isinstance(source, Follow) or not own:  # without a log its record is on the way to the dispatcher
            assert reader.leader is not None
            if await self._read_leader(
                reader, reader.leader
            ):  # its echo is being written; the sweep would find it late
                asyncio.get_running_loop().call_later(ECHO_S, self.read, reader)
        else:
            self._own_text(reader, own)

    async def _read_leader(self, reader: Reader, leader: Feed) -> bool:
        """Show the leader's text, not its end. Did the leader end?"""
        cursor = reader.cursor
        entries = await self._log.read(leader.task, cursor.after if cursor.attempt else None)
        if reader.leader is leader:
            self._show_log(reader, [e for e in entries if not isinstance(e, Terminal)])
        return any(isinstance(e, Terminal) for e in entries)

    def _own_text(self, reader: Reader, own: Sequence[Entry]) -> None:
        """The text is in the reader's own log. If the task was promoted, what the leader's log had does not count."""
        if reader.leader is not None:
            newest = max((e.gen for e in own if not isinstance(e, Header)), default=0)
            if reader.cursor.offset and not newest:
                return  # what was shown stands until there is something else
            self._leave_leader(reader)
            # Attempts are numbered per task, so only an echo of the leader's answer makes equal gens the same text.
            if newest == reader.cursor.gen and is_echo(own):
                reader.cursor = Cursor(newest, reader.cursor.offset)
            elif reader.cursor.offset:
                reader.cursor = Cursor(newest)
                self._show(reader, [Restarted(newest)])
            else:
                reader.cursor = Cursor()
        self._show_log(reader, own)

    def _show_log(self, reader: Reader, entries: Sequence[Entry]) -> None:
        """Show the newest text of the log beyond the cursor, compacted; stop where the sink is full."""
        newest = max((e.gen for e in entries if not isinstance(e, Header)), default=0)
        text = [e for e in entries if not isinstance(e, Header) and e.gen == newest]
        if newest < reader.cursor.gen and any(isinstance(e, Terminal) for e in text):
            # The client names a text that is no more, or never was, and the task ended with this one.
            reader.cursor = Cursor(newest)
            self._show(reader, [Restarted(newest)])
        for piece in pieces(text):
            if not reader.open or reader.paused:
                return
            if not reader.sink.writable:
                self._pause(reader)
                return
            self._show(reader, merged(reader.cursor.take_log(piece)))

    async def _look(self, reader: Reader) -> None:
        """Nothing is there. A task that ended and whose log is gone can be read no more; any other has yet to go on."""
        at = monotonic()
        if not reader.missing_since:
            reader.missing_since = at
        elif at - reader.missing_since >= LOOK_S:
            reader.missing_since = at
            control = await self._control.get(reader.task)
            if control is not None and control.state == "ended" and not await self._log.read(reader.task):
                self._gone(reader)

    def _gone(self, reader: Reader) -> None:
        if reader.open:
            self.close(reader)
            reader.sink.on_gone(reader, "expired")

    # -- feeds and routes -----------------------------------------------------------------------------------------------

    def _feed(self, task: str) -> Feed:
        feed = self._by_task.get(task)
        if feed is None:
            while (handle := next(self._handles) & 0xFFFFFFFF) == 0 or handle in self._by_handle:
                pass
            feed = self._by_task[task] = self._by_handle[handle] = Feed(task, handle)
        return feed

    def _leave(self, feed: Feed, reader: Reader) -> None:
        feed.readers = tuple(r for r in feed.readers if r is not reader)
        if not feed.readers:
            del self._by_task[feed.task], self._by_handle[feed.handle]
            if feed.attached:
                self._spawn(self._detach(feed))
            if feed.watched:
                self._signals.unwatch(feed.watched, feed.task)

    def _leave_leader(self, reader: Reader) -> None:
        leader, reader.leader = reader.leader, None
        if leader is not None:
            self._leave(leader, reader)

    async def _attach(self, feed: Feed, reader: Reader) -> None:
        if feed.wanted and not feed.attached and feed.readers:
            feed.attached = True  # before the wait: who attaches meanwhile reads after this write
            try:
                await self._log.attach(feed.task, self.route(feed), ROUTE_S)
            except RedisAwayError:
                feed.attached = False  # the sweep tries again
                return
        self.read(reader)

    async def _detach(self, feed: Feed) -> None:
        try:
            await self._log.detach(feed.task, self.route(feed))
        except RedisAwayError:
            log.debug("route of %s stays until it expires: Redis is away", feed.task)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
