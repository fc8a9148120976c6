"""The token log, in memory and on a real Redis."""

import asyncio
import itertools
import random
import uuid

import pytest

from millrace.task.v1.task_pb2 import Outcome, Route
from services.chassis.resp import Resp
from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.adapters.redis_token_log import RedisTokenLog
from services.tasklog.core.entries import (
    Continue,
    Delta,
    Ended,
    Fenced,
    Fresh,
    Header,
    Lost,
    Terminal,
    Written,
)
from services.tasklog.core.keys import log_key, readers_key
from services.tasklog.core.reading import Cursor, Restarted, Text, assemble
from services.tasklog.ports import RedisAwayError, RunChangedError
from tests.model.forgetful_redis import forgetful_redis
from tests.support.waiting import eventually

DONE = Outcome(finish_reason="stop")
BASE = 1_764_000_000_000 << 20  # attempts as large as a dispatcher's
KEEP_S = 60.0


class InMemory:
    """Bad days of the memory adapter."""

    def __init__(self):
        self.log = MemoryTokenLog()

    def mark(self):
        return len(self.log._undo)

    async def forget(self, mark):
        self.log.forget(entries=len(self.log._undo) - mark)

    async def restart(self):
        self.log.restart()

    async def stop(self):
        self.log.away = True


class OnRedis:
    """The same on a Redis of the test's own."""

    def __init__(self, server, resp):
        self.server, self.resp, self.log = server, resp, RedisTokenLog(resp)
        self.mark = server.mark

    async def forget(self, mark):
        before = self.log.run_id
        await asyncio.to_thread(self.server.restart, mark)
        while self.log.run_id == before:
            await asyncio.sleep(0.01)
        await self.resp.wait_connected(5)

    async def restart(self):
        await self.forget(None)

    async def stop(self):
        self.server.kill()
        while self.resp.connected:
            await asyncio.sleep(0.01)


@pytest.fixture(params=["memory", "redis"])
async def log(request):
    """A log that works."""
    if request.param == "memory":
        yield MemoryTokenLog()
        return
    async with Resp(request.getfixturevalue("redis_url")) as resp:
        await resp.wait_connected(5)
        yield RedisTokenLog(resp)


@pytest.fixture(params=["memory", "redis"])
async def lossy(request, tmp_path):
    """A log whose Redis the test may stop, restart, and make forget."""
    if request.param == "memory":
        yield InMemory()
        return
    with forgetful_redis(tmp_path) as server:
        async with Resp(server.url) as resp:
            await resp.wait_connected(5)
            yield OnRedis(server, resp)


@pytest.fixture
def task():
    """A task nobody else has."""
    return uuid.uuid4().hex


nonces = itertools.count()


def header(log, attempt, **fields):
    return Header(attempt, "worker", f"nonce {next(nonces)}", log.run_id, **fields)


async def begin(log, task, attempt):
    return await log.begin(task, header(log, attempt), KEEP_S)


async def append(log, task, *entries):
    return await log.append(log.run_id, [(task, entry) for entry in entries])


async def test_what_is_appended_is_what_is_read(log, task):
    """All of it, or what lies above an id; also text beyond ASCII and attempts of 62 bits."""
    head = header(log, BASE + 1, follows="twin")
    assert await log.begin(task, head, KEEP_S) == Fresh()
    deltas = [Delta(BASE + 1, BASE + 1, 0, 3, "aü"), Delta(BASE + 1, BASE + 1, 3, 7, "🌊")]
    end = Terminal(BASE + 1, BASE + 1, 7, DONE)
    assert await append(log, task, deltas[0]) == [Written()]
    assert await append(log, task, deltas[1], end) == [Written(), Written()]
    assert await log.read(task) == [head, *deltas, end]
    assert await log.read(task, after=(BASE + 1, 0)) == [*deltas, end]
    assert await log.read(task, after=(BASE + 1, 3)) == [deltas[1], end]
    assert await log.read(task, after=(BASE + 1, 2**64 - 1)) == []


async def test_a_task_without_a_log_reads_as_nothing(log, task):
    """No error: it may not have begun."""
    assert await log.read(task) == []
    assert not await log.cancel_wished(task)


async def test_an_append_never_creates_a_log(log, task):
    """A log that is gone was lost or has expired; what a stale writer holds would be a text with a hole."""
    assert await append(log, task, Delta(1, 1, 4, 5, "e")) == [Lost()]
    assert await append(log, task, Delta(1, 1, 4, 5, "e"), Terminal(1, 1, 5, DONE)) == [Lost(), Lost()]
    assert await log.rewrite(log.run_id, task, Delta(1, 1, 0, 5, "abcde"), Terminal(1, 1, 5, DONE)) == Lost()
    assert await log.read(task) == []


async def test_an_append_may_be_repeated(log, task):
    """Whoever did not hear the answer writes again and learns that it is written; nothing is there twice."""
    await begin(log, task, 1)
    one, two, end = Delta(1, 1, 0, 1, "a"), Delta(1, 1, 1, 2, "b"), Terminal(1, 1, 2, DONE)
    await append(log, task, one)
    assert await append(log, task, one) == [Written()]
    assert await append(log, task, one, two) == [Written(), Written()]
    assert await append(log, task, two, end) == [Written(), Written()]
    assert await append(log, task, end) == [Written()]
    assert await append(log, task, one, two, end) == [Written()] * 3
    assert (await log.read(task))[1:] == [one, two, end]


async def test_a_begin_may_be_repeated_by_its_writer_only(log, task):
    """The nonce tells a repeated header from that of another who was given the same number."""
    await begin(log, task, 1)
    await append(log, task, Delta(1, 1, 0, 1, "a"))
    mine = header(log, 2)
    assert await log.begin(task, mine, KEEP_S) == Continue(1, "a")
    assert await log.begin(task, mine, KEEP_S) == Continue(1, "a")
    assert await begin(log, task, 2) == Fenced()
    assert await begin(log, task, 1) == Fenced()


async def test_a_takeover_fences_before_it_reads_the_end_offset(log, task):
    """However a takeover races with a writer, it continues from the last byte that writer ever got into the log."""
    await begin(log, task, 1)
    written = 0

    async def write():
        nonlocal written
        for start in range(10_000):
            (result,) = await append(log, task, Delta(1, 1, start, start + 1, "x"))
            if result == Fenced():
                return
            written += 1
            await asyncio.sleep(0)

    writer = asyncio.create_task(write())
    while written < 20:
        await asyncio.sleep(0)
    begun = await begin(log, task, 2)
    await writer
    assert begun == Continue(1, "x" * written)
    assert [entry.attempt for entry in await log.read(task)] == [1] * (written + 1) + [2]


async def test_a_zombie_workers_appends_are_refused_and_never_shown(log, task):
    """Deltas, the end, and the whole text written again: all refused from the moment the next attempt began."""
    await begin(log, task, 1)
    await append(log, task, Delta(1, 1, 0, 2, "ab"))
    await begin(log, task, 2)
    assert await append(log, task, Delta(1, 1, 2, 3, "x")) == [Fenced()]
    assert await append(log, task, Delta(1, 1, 2, 3, "x"), Terminal(1, 1, 3, DONE)) == [Fenced(), Fenced()]
    assert await append(log, task, Terminal(1, 1, 2, DONE)) == [Fenced()]
    assert await log.rewrite(log.run_id, task, Delta(1, 1, 0, 3, "abx"), None) == Fenced()
    assert await append(log, task, Delta(1, 1, 0, 2, "ab")) == [Fenced()], "what it did write does not help it"
    await append(log, task, Delta(2, 1, 2, 3, "c"))
    assert assemble(await log.read(task), 1) == "abc"


async def test_whoever_finds_an_end_gets_it_with_its_text(log, task):
    """So that it can run the end routine again."""
    await begin(log, task, 1)
    end = Terminal(1, 1, 3, DONE)
    await append(log, task, Delta(1, 1, 0, 3, "aü"), end)
    assert await begin(log, task, 2) == Ended(end, "aü")


async def test_many_tasks_are_appended_at_once_each_with_its_own_result(log):
    """One tick of a worker: results in the order of the entries, whatever the order of the tasks."""
    first, second, third = (uuid.uuid4().hex for _ in range(3))
    await begin(log, first, 1)
    await begin(log, second, 1)
    await begin(log, second, 2)
    await log.wish_cancel(first, KEEP_S)
    results = await log.append(
        log.run_id,
        [
            (second, Delta(1, 1, 0, 1, "x")),
            (first, Delta(1, 1, 0, 1, "a")),
            (third, Delta(1, 1, 0, 1, "x")),
            (second, Delta(2, 2, 0, 1, "b")),
            (first, Terminal(1, 1, 1, DONE)),
        ],
    )
    assert results == [Fenced(), Written(cancel=True), Lost(), Written(), Written(cancel=True)]
    assert await log.append(log.run_id, []) == []


async def test_a_writer_sees_the_readers_that_were_attached_before_it_wrote(log, task):
    """One per gateway process: the newest handle of each, until it is detached."""
    await begin(log, task, 1)
    one, two = Route(address="[::1]:8082", boot=2**63 - 1, handle=1), Route(address="b:8082", boot=4, handle=9)
    await log.attach(task, one, KEEP_S)
    assert await append(log, task, Delta(1, 1, 0, 1, "a")) == [Written((one,))]
    await log.attach(task, two, KEEP_S)
    (written,) = await append(log, task, Delta(1, 1, 1, 2, "b"))
    assert sorted(written.routes, key=lambda route: route.handle) == [one, two]
    one.handle = 7
    await log.attach(task, one, KEEP_S)
    await log.detach(task, two)
    assert await append(log, task, Terminal(1, 1, 2, DONE)) == [Written((one,))]
    await log.detach(task, two)


async def test_a_route_attached_before_the_task_starts_is_not_lost(log, task):
    """The log need not be there yet."""
    route = Route(address="a:8082", boot=1, handle=1)
    await log.attach(task, route, KEEP_S)
    await begin(log, task, 1)
    assert await append(log, task, Delta(1, 1, 0, 1, "a")) == [Written((route,))]


async def test_a_wish_to_cancel_is_seen_by_the_writer_and_by_who_asks(log, task):
    """Also one that comes before the log."""
    await log.wish_cancel(task, KEEP_S)
    assert await log.cancel_wished(task)
    await begin(log, task, 1)
    assert await append(log, task, Delta(1, 1, 0, 1, "a")) == [Written(cancel=True)]


async def test_a_log_lives_for_as_long_as_it_is_kept(log, task):
    """Then it reads as nothing, with its routes and wishes, and is not written again."""
    await begin(log, task, 1)
    await log.attach(task, Route(address="a:1", boot=1, handle=1), KEEP_S)
    await log.wish_cancel(task, KEEP_S)
    await log.expire(task, 0.05)

    async def forgotten():
        return not await log.read(task) and not await log.cancel_wished(task)

    await eventually(forgotten)
    assert await append(log, task, Delta(1, 1, 0, 1, "a")) == [Lost()]
    await log.expire(task, KEEP_S)
    assert await begin(log, task, 2) == Fresh()
    assert await append(log, task, Delta(2, 2, 0, 1, "a")) == [Written()]


async def test_a_begin_that_is_refused_shortens_no_life(log, task):
    """A late attempt with its own idea of how long the log is needed does not take it from the one that runs."""
    await begin(log, task, 2)
    await log.wish_cancel(task, KEEP_S)
    assert await log.begin(task, header(log, 1), 0.01) == Fenced()
    await log.wish_cancel(task, 0.01)
    await asyncio.sleep(0.05)
    assert len(await log.read(task)) == 1
    assert await log.cancel_wished(task)


async def test_a_second_reader_and_a_late_one_see_the_same_bytes(log, task):
    """Live with lost frames, late, or from the middle: one text, one end."""
    rng = random.Random(7)
    text = "Der Müller🌊mahlt " * 5
    live, lost, late = Cursor(), Cursor(), Cursor()
    shown = {live: "", lost: "", late: ""}

    def show(reader, events):
        shown[reader] += "".join(event.text for event in events if isinstance(event, Text))

    async def give(reader, frame):
        answer = reader.take_frame(*frame)
        show(reader, answer if isinstance(answer, list) else reader.take_log(await log.read(task, reader.after)))

    await begin(log, task, 1)
    attempt, offset, rest = 1, 0, text
    while rest:
        piece, rest = rest[: (size := rng.randint(1, 9))], rest[size:]
        end = offset + len(piece.encode())
        await append(log, task, Delta(attempt, 1, offset, end, piece))
        for reader in (live, lost):
            if reader is live or rng.random() < 0.5:
                await give(reader, (attempt, 1, offset, end, piece, None))
        offset = end
        if rng.random() < 0.2:
            attempt += 1
            assert await begin(log, task, attempt) == Continue(1, text[: len(text) - len(rest)])
    await append(log, task, Terminal(attempt, 1, offset, DONE))
    for reader in (live, lost):
        await give(reader, (attempt, 1, offset, offset, "", DONE))
    show(late, late.take_log(await log.read(task)))
    assert set(shown.values()) == {text}
    assert all(reader.ended for reader in shown)


async def test_a_text_whose_tail_redis_forgot_is_begun_anew_and_said_so_never_spliced(lossy, task):
    """A reader holds more than Redis does; the next worker begins another text and the reader is told."""
    log, reader = lossy.log, Cursor()
    await begin(log, task, 1)
    await append(log, task, Delta(1, 1, 0, 2, "ab"))
    mark = lossy.mark()
    await append(log, task, Delta(1, 1, 2, 4, "cd"))
    assert reader.take_log(await log.read(task))[-1] == Text(1, 4, "cd")
    await lossy.forget(mark)
    assert assemble(await log.read(task), 1) == "ab"
    assert await begin(log, task, 2) == Fresh()
    await append(log, task, Delta(2, 2, 0, 5, "Other"))
    assert reader.take_log(await log.read(task)) == [Restarted(2), Text(2, 5, "Other")]


async def test_a_redis_failover_that_lost_the_tail_leaves_no_hole_the_worker_logs_the_text_again(lossy, task):
    """Readers that were ahead of the log, and new ones, get the same text and its end."""
    log = lossy.log
    await begin(log, task, 1)
    await append(log, task, Delta(1, 1, 0, 2, "ab"))
    mark = lossy.mark()
    await append(log, task, Delta(1, 1, 2, 5, "cü"), Delta(1, 1, 5, 6, "!"))
    ahead = Cursor(gen=1, offset=5)
    await lossy.forget(mark)
    assert await begin(log, task, 2) == Fresh()
    whole, end = Delta(2, 1, 0, 6, "abcü!"), Terminal(2, 1, 6, DONE)
    assert await log.rewrite(log.run_id, task, whole, end) == Written()
    assert await log.rewrite(log.run_id, task, whole, end) == Written(), "an answer that was lost"
    assert [event.text for event in ahead.take_log(await log.read(task))[:-1]] == ["!"]
    late = Cursor()
    events = late.take_log(await log.read(task))
    assert "".join(event.text for event in events[:-1]) == "abcü!"
    assert ahead.ended
    assert late.ended


async def test_a_text_that_goes_on_after_it_was_logged_again_can_be_continued(lossy, task):
    """The whole text lies under the new run, so the next attempt may trust it."""
    log = lossy.log
    await begin(log, task, 1)
    await append(log, task, Delta(1, 1, 0, 2, "ab"))
    await lossy.restart()
    assert await begin(log, task, 2) == Fresh()
    await log.rewrite(log.run_id, task, Delta(2, 1, 0, 2, "ab"), None)
    await append(log, task, Delta(2, 1, 2, 3, "c"))
    assert await begin(log, task, 3) == Continue(1, "abc")


async def test_an_end_without_text_is_logged_again_alone(lossy, task):
    """There is no text to write."""
    log = lossy.log
    await begin(log, task, 1)
    mark = lossy.mark()
    await append(log, task, Terminal(1, 1, 0, DONE))
    await lossy.forget(mark)
    assert await begin(log, task, 2) == Fresh()
    end = Terminal(2, 1, 0, DONE)
    assert await log.rewrite(log.run_id, task, Delta(2, 1, 0, 0, ""), end) == Written()
    assert await begin(log, task, 3) == Ended(end, "")


async def test_who_writes_under_an_old_run_is_stopped_before_it_writes(lossy, task):
    """A writer must know that Redis may have forgotten before it adds to what Redis has."""
    log, run = lossy.log, lossy.log.run_id
    old = header(log, 2)
    await begin(log, task, 1)
    await lossy.restart()
    assert log.run_id != run
    with pytest.raises(RunChangedError):
        await log.begin(task, old, KEEP_S)
    with pytest.raises(RunChangedError):
        await log.append(run, [(task, Delta(1, 1, 0, 1, "a"))])
    with pytest.raises(RunChangedError):
        await log.rewrite(run, task, Delta(1, 1, 0, 1, "a"), None)
    assert len(await log.read(task)) == 1


async def test_without_redis_every_call_says_so(lossy, task):
    """At once; the caller knows what waiting is worth."""
    log, route = lossy.log, Route(address="a:1", boot=1, handle=1)
    await begin(log, task, 1)
    await lossy.stop()
    for call in (
        lambda: begin(log, task, 2),
        lambda: append(log, task, Delta(1, 1, 0, 1, "a")),
        lambda: log.rewrite(log.run_id, task, Delta(1, 1, 0, 1, "a"), None),
        lambda: log.read(task),
        lambda: log.attach(task, route, KEEP_S),
        lambda: log.detach(task, route),
        lambda: log.expire(task, KEEP_S),
        lambda: log.wish_cancel(task, KEEP_S),
        lambda: log.cancel_wished(task),
    ):
        with pytest.raises(RedisAwayError):
            await call()


async def test_memory_forgets_by_time():
    """The newest seconds of writes of all kinds are gone, and the run is another."""
    clock = [100.0]
    log = MemoryTokenLog(lambda: clock[0])
    route = Route(address="a:1", boot=1, handle=1)
    run = log.run_id
    await begin(log, "t", 1)
    await log.attach("t", route, KEEP_S)
    clock[0] = 101.0
    await append(log, "t", Delta(1, 1, 0, 1, "a"))
    await log.detach("t", route)
    await log.wish_cancel("t", KEEP_S)
    log.forget(seconds=0.5)
    assert log.run_id != run
    assert not await log.cancel_wished("t")
    assert await append(log, "t", Delta(1, 1, 0, 2, "ab")) == [Written((route,))]
    log.forget(seconds=5)
    assert await log.read("t") == []


async def test_a_full_redis_is_away_and_nothing_is_half_written(tmp_path, task):
    """Refused for now, not fenced; text and end of a task are written together or not at all."""
    with forgetful_redis(tmp_path) as server:
        async with Resp(server.url) as resp:
            await resp.wait_connected(5)
            log = RedisTokenLog(resp)
            await begin(log, task, 1)
            await resp.call("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(RedisAwayError, match="OOM"):
                await append(log, task, Delta(1, 1, 0, 1, "a"))
            with pytest.raises(RedisAwayError, match="OOM"):
                await append(log, task, Delta(1, 1, 0, 1, "a"), Terminal(1, 1, 1, DONE))
            with pytest.raises(RedisAwayError, match="OOM"):
                await begin(log, task, 2)
            await resp.call("CONFIG", "SET", "maxmemory", 0)
            assert len(await log.read(task)) == 1
            assert await append(log, task, Delta(1, 1, 0, 1, "a"), Terminal(1, 1, 1, DONE)) == [Written(), Written()]


async def test_fields_and_wishes_of_a_newer_release_do_not_disturb(redis_url, task):
    """A rolling upgrade has both."""
    async with Resp(redis_url) as resp:
        await resp.wait_connected(5)
        log = RedisTokenLog(resp)
        await begin(log, task, 1)
        await resp.call("XADD", log_key(task), "1-1", "s", 0, "t", "a", "novel", b"\xff")
        await resp.call("HSET", readers_key(task), "seen", 1)
        assert (await log.read(task))[1:] == [Delta(1, 1, 0, 1, "a")]
        assert not await log.cancel_wished(task)
        assert await append(log, task, Delta(1, 1, 1, 2, "b")) == [Written()]


async def test_every_key_of_a_task_has_an_end(redis_url, task):
    """Nothing stays in Redis for ever, whoever dies."""
    async with Resp(redis_url) as resp:
        await resp.wait_connected(5)
        log = RedisTokenLog(resp)
        await begin(log, task, 1)
        await log.attach(task, Route(address="a:1", boot=1, handle=1), KEEP_S)
        await log.wish_cancel(task, KEEP_S)
        keys = [log_key(task), f"{log_key(task)}:r"]
        assert all(0 < ttl <= KEEP_S for ttl in await resp.pipe(*(("TTL", key) for key in keys)))
