"""Readers: who reads which task, on any transport, from frames and the log to one ordered text with one end.

Live frames come by handle and are hints; whatever does not connect is read from the log (`replay.py`):

* a gap, and the first read after a route was written (attach, then read);
* silence: one sweep re-reads each unfinished task that was silent for a second, waiting ones too;
* a reader whose sink was full: frames are dropped until it drained, then the log gives what it missed, compacted;
* another Redis run id: routes are written again, then the log is read.

Frames that arrive before the acknowledgment went out are held back until `release`.
"""

import asyncio
from collections.abc import Callable, Sequence

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from millrace.frames.v1.frames_pb2 import Frame
from millrace.task.v1.task_pb2 import Route
from services.chassis import metrics
from services.chassis.background import Background
from services.chassis.clock import monotonic
from services.gateway.ports import Signals
from services.gateway.reading.feeds import Feeds
from services.gateway.reading.reader import Feed, Reader, Sink
from services.gateway.reading.replay import Replay
from services.tasklog.core.reading import GAP, Cursor, Event, Restarted, Text
from services.tasklog.ports import TaskControl, TokenLog

SILENCE_S = 1.0  # a task silent for longer is read from the log
SWEEP_S = 0.25
STRIDE = 8  # readers served in one turn of the loop: hundreds at once would hold up acknowledgments
COALESCE_S = 0.05  # how long text waits for more while the core is busy
BUSY = 0.6
EARLY_FRAMES = 64  # held before the acknowledgment; more are left to the log


class Readers:
    """All readers of this process. `address` and `boot` name its frames server in routes. Implements `Stage` for the replay."""

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
        self._boot = boot
        self._busy = busy
        self._feeds = Feeds(token_log, signals, address=address, boot=boot)
        self._replay = Replay(token_log, control, self, self.read)
        self._pending: list[Reader] = []
        self._work = Background()
        self._run_id = ""
        self.on_ended: Callable[[str], None] = lambda _: None  # told of each task whose end a reader saw

    def of(self, task: str) -> tuple[Reader, ...]:
        """Readers of a task in this process."""
        feed = self._feeds.by_task.get(task)
        return tuple(r for r in feed.readers if r.feed is feed) if feed else ()

    # -- life of a reader -----------------------------------------------------------------------------------------------

    def open(self, task: str, sink: Sink, *, gen: int = 0, offset: int = 0, held: bool = False) -> Reader:
        """A new reader. `held`: nothing reaches the sink before `release`. Without a route in Redis until `attach`."""
        reader = Reader(self._feeds.join(task), sink, Cursor(gen, offset), held=held)
        self._feeds.join(task, reader)
        metrics.gateway_readers.inc()
        return reader

    def route(self, reader: Reader) -> Route:
        """What workers need to reach the reader; rides in the task's record."""
        return self._feeds.route(reader.feed)

    def release(self, reader: Reader) -> None:
        """The acknowledgment went out: what overtook it follows now."""
        early, reader.early = reader.early, None
        reader.heard = monotonic()
        for feed, frame in early or ():
            self._take_frame(reader, feed, frame)
        if early is not None and len(early) >= EARLY_FRAMES:
            self.read(reader)

    def attach(self, reader: Reader) -> None:
        """Write the route, then read the log."""
        reader.feed.wanted = True
        self._work.spawn(self._attach(reader.feed, reader))

    def watch(self, reader: Reader, pool: str) -> None:
        """Ask for the place of a task whose record names another reader."""
        self._feeds.watch(reader.feed, pool)

    def follow(self, reader: Reader, leader: str) -> None:
        """The text is in the log of a running twin: read it there, live too, until the task's own end."""
        self.follow_no_more(reader)
        reader.leader = feed = self._feeds.join(leader, reader)
        feed.wanted = True
        self._work.spawn(self._attach(feed, reader))

    def follow_no_more(self, reader: Reader) -> None:
        """The text is in the task's own log."""
        leader, reader.leader = reader.leader, None
        if leader is not None:
            self._leave(leader, reader)

    def close(self, reader: Reader) -> None:
        """Read no more. Closing twice does nothing."""
        if reader.open:
            reader.open = False
            reader.pending = None
            self.follow_no_more(reader)
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
            feed = self._feeds.by_handle.get(frame.handle)
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
            self._work.spawn(self._replay.run(reader, repair=repair))

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
        for feed in tuple(self._feeds.by_task.values()):
            if changed:
                feed.wanted, feed.attached = True, False
            attach = feed.wanted and not feed.attached
            for reader in feed.readers:
                idle = reader.heard <= horizon and not reader.paused and not reader.reading
                if reader.early is not None or not (idle or changed):
                    continue
                if attach:
                    self._work.spawn(self._attach(feed, reader))
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
            self.show(reader, events)

    def show(self, reader: Reader, events: Sequence[Event]) -> None:
        """Give events to the sink; pause the reader if that filled it."""
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
            self.pause(reader)

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
        """A stride now, the next in the loop's next turn: acknowledgments go in between."""
        readers, self._pending = self._pending[:STRIDE], self._pending[STRIDE:]
        for reader in readers:
            self._flush(reader)
        if self._pending:
            asyncio.get_running_loop().call_soon(self._flush_all)

    def _flush(self, reader: Reader) -> None:
        pending, reader.pending = reader.pending, None
        if pending:
            cursor = reader.cursor
            reader.sink.on_text(reader, cursor.gen, cursor.offset, "".join(pending))

    def pause(self, reader: Reader) -> None:
        """The sink is full: no frame is forwarded until it drained."""
        if not reader.paused:
            reader.paused = True
            metrics.gateway_slow_readers.inc()

    def gone(self, reader: Reader) -> None:
        """There is nothing to read any more."""
        if reader.open:
            self.close(reader)
            reader.sink.on_gone(reader, "expired")

    # -- inside ---------------------------------------------------------------------------------------------------------

    async def _attach(self, feed: Feed, reader: Reader) -> None:
        if await self._feeds.attach(feed):  # otherwise the sweep tries again
            self.read(reader)

    def _leave(self, feed: Feed, reader: Reader) -> None:
        if self._feeds.leave(feed, reader):
            self._work.spawn(self._feeds.detach(feed))
