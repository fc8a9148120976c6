"""Readers against a token log in memory: frames are hints, the log is the truth."""

import asyncio
import gc
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from millrace.frames.v1.frames_pb2 import Frame
from millrace.task.v1.task_pb2 import CACHE_MARK_COALESCED, OUTCOME_KIND_COMPLETED, Outcome, Route
from services.chassis.background import call_off
from services.gateway.reading import readers as readers_module
from services.gateway.reading.reader import Reader
from services.gateway.reading.readers import Readers
from services.gateway.reading.replay import LOOK_S
from services.tasklog.adapters.memory_task_control import MemoryTaskControl
from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.core.entries import Delta, Header, Terminal
from tests.support.gateway_lab import BOOT, LabSignals, LabWorker
from tests.support.waiting import eventually

TASK, LEADER = "a" * 26, "b" * 26


@dataclass
class Page:
    """A sink that remembers."""

    text: str = ""
    gen: int = 0
    deltas: int = 0
    restarts: int = 0
    ends: list[Outcome] = field(default_factory=list)
    gone: str = ""
    statuses: list[TaskStatus] = field(default_factory=list)
    writable: bool = True

    def on_text(self, reader: Reader, gen: int, offset: int, text: str) -> None:
        assert not self.ends
        self.text, self.gen, self.deltas = self.text + text, gen, self.deltas + 1
        assert offset == len(self.text.encode())

    def on_restarted(self, reader: Reader, gen: int) -> None:
        self.text, self.gen, self.restarts = "", gen, self.restarts + 1

    def on_end(self, reader: Reader, gen: int, offset: int, outcome: Outcome) -> None:
        assert offset == len(self.text.encode())
        self.ends.append(outcome)

    def on_status(self, reader: Reader, status: TaskStatus) -> None:
        self.statuses.append(status)

    def on_gone(self, reader: Reader, code: str) -> None:
        self.gone = code


class Desk:
    """Readers, their log, and workers whose frames arrive at once."""

    def __init__(self) -> None:
        self.log, self.control, self.signals = MemoryTokenLog(), MemoryTaskControl(), LabSignals()
        self.busy = 0.0
        self.readers = Readers(self.log, self.control, self.signals, address="lab", boot=BOOT, busy=lambda: self.busy)

    def worker(self, task: str = TASK, reader: Reader | None = None) -> LabWorker:
        worker = LabWorker(self.log, task, self._push)
        worker.route = self.readers.route(reader) if reader else None
        return worker

    async def _push(self, batch: list[tuple[Route, Frame]]) -> None:
        self.readers.on_frames(BOOT, [frame for _, frame in batch])

    async def settle(self) -> None:
        """Let every read that was begun come to its end."""
        while work := [t for t in self.readers._work._tasks if not t.done()]:
            await asyncio.gather(*work)

    async def sweep(self, after_s: float = 1.1) -> None:
        """The watchdog's turn, when so much time has passed."""
        for feed in self.readers._feeds.by_task.values():
            for reader in feed.readers:
                reader.heard -= after_s
                if reader.missing_since:
                    reader.missing_since -= after_s
        await self.readers.sweep()
        await self.settle()


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_route_attached_before_the_task_starts_is_not_lost(desk: Desk) -> None:
    """A reader that attached while the task waited gets its first frame live, without the watchdog."""
    page = Page()
    desk.readers.attach(desk.readers.open(TASK, page))
    await desk.settle()
    worker = desk.worker()
    await worker.begin(5)
    await worker.write("hello")
    assert page.text == "hello"


async def test_a_lost_live_frame_with_no_successor_is_repaired_by_the_watchdog(desk: Desk) -> None:
    """The last frames are lost on the way; within a second the watchdog reads text and end from the log."""
    page = Page()
    worker = desk.worker(reader=desk.readers.open(TASK, page))
    await worker.begin(5)
    await worker.write("one ")
    worker.lost = True
    await worker.write("two")
    await worker.end()
    assert page.text == "one "
    await desk.sweep(0.5)
    assert page.text == "one "
    await desk.sweep()
    assert (page.text, len(page.ends)) == ("one two", 1)
    assert not desk.readers.of(TASK)


async def test_the_watchdog_looks_after_waiting_tasks_too(desk: Desk) -> None:
    """A task that ended without ever having sent a frame, at the dispatcher for example, ends for its reader."""
    page = Page()
    desk.readers.open(TASK, page)
    await desk.sweep()
    assert not page.ends
    worker = desk.worker()
    await worker.begin(5)
    await worker.end(Outcome(error_code="expired"))
    await desk.sweep()
    assert page.ends[0].error_code == "expired"


async def test_a_gap_is_filled_from_the_log(desk: Desk) -> None:
    """A frame that does not connect makes the reader read the log; nothing comes twice."""
    page = Page()
    worker = desk.worker(reader=desk.readers.open(TASK, page))
    await worker.begin(5)
    await worker.write("one ")
    worker.lost = True
    await worker.write("two ")
    worker.lost = False
    await worker.write("three ")
    await desk.settle()
    assert page.text == "one two three "
    await worker.write("four")
    assert page.text == "one two three four"


async def test_a_change_of_redis_attaches_everybody_again(desk: Desk) -> None:
    """After a restart of Redis the route is written again, for readers whose route rode in the record too."""
    page = Page()
    reader = desk.readers.open(TASK, page)
    await desk.readers.sweep()
    desk.log.restart()
    await desk.sweep(0.0)
    worker = desk.worker()
    await worker.begin(5)
    await worker.write("live")
    assert page.text == "live"
    assert reader.feed.attached


async def test_redis_away_costs_time_and_nothing_else(desk: Desk) -> None:
    """While Redis is away readers wait; the route is written and the log read once it is back."""
    page = Page()
    desk.log.away = True
    desk.readers.attach(desk.readers.open(TASK, page))
    await desk.settle()
    desk.log.away = False
    worker = desk.worker()
    await worker.begin(5)
    await worker.write("one ")
    await desk.sweep()
    assert page.text == "one "
    await worker.write("two")
    assert page.text == "one two"


async def test_a_zombies_frames_are_not_shown(desk: Desk) -> None:
    """Frames of a fenced attempt do not reach a reader that has seen a higher one."""
    page = Page()
    reader = desk.readers.open(TASK, page)
    zombie, worker = desk.worker(reader=reader), desk.worker(reader=reader)
    await zombie.begin(5)
    await zombie.write("one ")
    await worker.begin(6, gen=5)
    worker.gen, worker.offset = 5, 4
    await worker.write("two ")
    stale = Frame(handle=reader.feed.handle, attempt=5, gen=5, start=8, end=14, text="zombie")
    desk.readers.on_frames(BOOT, [stale])
    await worker.write("three")
    assert page.text == "one two three"


async def test_frames_for_an_earlier_process_are_dropped(desk: Desk) -> None:
    """A batch with another boot id is for the process that had this address before."""
    page = Page()
    reader = desk.readers.open(TASK, page)
    desk.readers.on_frames(BOOT - 1, [Frame(handle=reader.feed.handle, attempt=5, gen=5, end=1, text="x")])
    assert not page.text


async def test_two_readers_of_one_process_share_one_route(desk: Desk) -> None:
    """Both get every frame; the route goes when the last one leaves."""
    one, two = Page(), Page()
    first, second = desk.readers.open(TASK, one), desk.readers.open(TASK, two)
    desk.readers.attach(first)
    desk.readers.attach(second)
    await desk.settle()
    worker = desk.worker()
    await worker.begin(5)
    await worker.write("a")
    desk.readers.close(first)
    await worker.write("b")
    assert (one.text, two.text) == ("a", "ab")
    desk.readers.close(second)
    await desk.settle()
    (written,) = await desk.log.append(desk.log.run_id, [(TASK, Delta(5, 5, 2, 3, "c"))])
    assert not written.routes


async def test_text_is_gathered_while_the_core_is_busy(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 60 % the first text goes out at once and later text gathers; the end comes with all of it."""
    monkeypatch.setattr(readers_module, "COALESCE_S", 0.01)
    page = Page()
    worker = desk.worker(reader=desk.readers.open(TASK, page))
    desk.busy = 0.9
    await worker.begin(5)
    await worker.write("first ")
    assert page.text == "first "
    await worker.write("second ")
    await worker.write("third ")
    assert page.text == "first "
    await asyncio.sleep(0.03)
    assert (page.text, page.deltas) == ("first second third ", 2)
    await worker.write("fourth")
    await worker.end()
    assert (page.text, page.deltas, len(page.ends)) == ("first second third fourth", 3, 1)


async def test_a_slow_sink_is_left_to_the_log(desk: Desk) -> None:
    """While the sink is full nothing is forwarded; when it drained one compacted piece follows."""
    page = Page()
    reader = desk.readers.open(TASK, page)
    worker = desk.worker(reader=reader)
    await worker.begin(5)
    page.writable = False
    await worker.write("0")
    for digit in "123456789":
        await worker.write(digit)
    await worker.end()
    await desk.sweep()
    assert (page.text, page.deltas) == ("0", 1)
    page.writable = True
    desk.readers.resume(reader)
    await desk.settle()
    assert (page.text, page.deltas, len(page.ends)) == ("0123456789", 2, 1)


async def test_a_log_that_expired_under_a_reader_is_gone(desk: Desk) -> None:
    """A task that ended and whose log went before the reader had it: `gone`, not silence for ever."""
    page = Page()
    desk.readers.open(TASK, page)
    await desk.control.ended(TASK)
    await desk.sweep()
    assert not page.gone
    await desk.sweep(LOOK_S + 1)
    assert page.gone == "expired"


async def test_a_gen_that_never_was_is_answered_with_a_new_beginning(desk: Desk) -> None:
    """A client that names a text above all that the log has, of a task that ended, reads the answer anew."""
    worker = desk.worker()
    await worker.begin(5)
    await worker.write("answer")
    await worker.end()
    page = Page(text="elsewhere")
    desk.readers.attach(desk.readers.open(TASK, page, gen=9, offset=9))
    await desk.settle()
    assert (page.text, page.restarts, len(page.ends)) == ("answer", 1, 1)


# -- followers ------------------------------------------------------------------------------------------------------------


async def echo(desk: Desk, leader: LabWorker, text: str) -> None:
    """What the dispatcher writes when a leader ended: its answer as the follower's own, under the same gen."""
    attempt, end = leader.attempt + 1, len(text.encode())
    await desk.log.begin(TASK, Header(attempt, "dispatcher", "e", desk.log.run_id), 300)
    outcome = Outcome(kind=OUTCOME_KIND_COMPLETED, finish_reason="stop", cache=CACHE_MARK_COALESCED)
    whole, end_of_it = Delta(attempt, leader.gen, 0, end, text), Terminal(attempt, leader.gen, end, outcome)
    await desk.log.rewrite(desk.log.run_id, TASK, whole, end_of_it)


async def test_a_follower_reads_its_leader_live_and_ends_with_its_own_end(desk: Desk) -> None:
    """The leader's text so far is replayed, the rest comes live, and the end is the follower's own."""
    leader = desk.worker(LEADER)
    await leader.begin(7)
    await leader.write("one ")
    page = Page()
    desk.readers.follow(desk.readers.open(TASK, page), LEADER)
    await desk.settle()
    await desk.worker().begin(6, follows=LEADER)
    await leader.write("two")
    assert page.text == "one two"
    await leader.end()
    await desk.settle()
    assert not page.ends
    await echo(desk, leader, "one two")
    await desk.sweep()
    assert (page.text, page.deltas, page.restarts) == ("one two", 2, 0)
    assert [outcome.cache for outcome in page.ends] == [CACHE_MARK_COALESCED]


async def test_a_late_reader_of_a_follower_finds_the_leader_by_its_log(desk: Desk) -> None:
    """Another gateway knows nothing of the joining: the follower's header names the leader."""
    leader = desk.worker(LEADER)
    await leader.begin(7)
    await leader.write("one ")
    await desk.worker().begin(6, follows=LEADER)
    page = Page()
    desk.readers.attach(desk.readers.open(TASK, page))
    await desk.settle()
    assert page.text == "one "
    await leader.write("two")
    assert page.text == "one two"


async def test_a_promoted_follower_begins_anew_and_says_so(desk: Desk) -> None:
    """A leader that ended without an answer: the follower's own text follows, even under a number that looks the same."""
    leader, page = desk.worker(LEADER), Page()
    reader = desk.readers.open(TASK, page)
    desk.readers.follow(reader, LEADER)
    await desk.settle()
    await leader.begin(7)
    await leader.write("half an ans")
    assert page.text == "half an ans"
    worker = desk.worker(reader=reader)
    await worker.begin(6, follows=LEADER)
    await worker.begin(7)
    await worker.write("own text")
    await desk.settle()
    assert (page.text, page.restarts) == ("own text", 1)
    await worker.end()
    assert (page.text, len(page.ends)) == ("own text", 1)
    await desk.settle()
    assert not desk.readers._feeds.by_task


async def test_a_task_whose_leader_was_never_there_runs_itself(desk: Desk) -> None:
    """The router found no leader: the reader that followed one reads the task's own log."""
    page = Page()
    reader = desk.readers.open(TASK, page)
    desk.readers.follow(reader, LEADER)
    await desk.settle()
    worker = desk.worker(reader=reader)
    await worker.begin(5)
    await worker.write("own ")
    await desk.settle()
    await worker.write("text")
    assert (page.text, page.restarts) == ("own text", 0)


# -- many at once ---------------------------------------------------------------------------------------------------------

STORM = 10_000
AT_ONCE = 100  # sockets that are readable in one turn of the loop
EVERY_S = 0.01


class Watched(Page):
    """A sink that remembers how much this thread had worked when each piece of text came, seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.worked = [time.thread_time()]

    def on_text(self, reader: Reader, gen: int, offset: int, text: str) -> None:
        super().on_text(reader, gen, offset, text)
        self.worked.append(time.thread_time())


@pytest.fixture
async def answered(desk: Desk) -> AsyncIterator[list[str]]:
    """Tasks that ended, of whose text clients have seen a part. The collector rests: its time is that of all other tests."""
    tasks = [f"{number:026d}" for number in range(STORM)]
    for task in tasks:
        worker = desk.worker(task)
        await worker.begin(5)
        await worker.write("seen, the rest")
        await worker.end()
    gc.collect()
    gc.disable()
    yield tasks
    gc.enable()


async def test_a_reconnect_storm_of_10_000_clients_is_served_within_5_s_and_starves_no_running_stream(
    desk: Desk, answered: list[str]
) -> None:
    """10,000 readers come back at once: each gets its rest, for less than 5 s of CPU, and a running stream goes on meanwhile.

    The running text has a piece each 10 ms: between two of them the gateway does less than a tenth of its work for the storm.
    In CPU time, because the machine may stall.
    """
    running = Watched()
    stream = desk.worker(reader=desk.readers.open(TASK, running))
    await stream.begin(5)

    async def feed() -> None:
        while True:
            await stream.write(".")
            await asyncio.sleep(EVERY_S)

    beside = [asyncio.create_task(feed()), asyncio.create_task(desk.readers.run_watchdog())]
    began = time.thread_time()
    pages = []
    for number, task in enumerate(answered):
        pages.append(Page(text="seen, "))
        desk.readers.attach(desk.readers.open(task, pages[-1], gen=5, offset=6))
        if number % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
    await desk.settle()
    took = time.thread_time() - began
    await eventually(lambda: len(running.text) == stream.offset)
    await call_off(beside)
    assert all(page.text == "seen, the rest" and len(page.ends) == 1 for page in pages)
    assert took < 5
    running.worked.append(time.thread_time())
    assert max(after - before for before, after in itertools.pairwise(running.worked)) < took / 10
