"""The end of a task, whoever brings it about."""

import asyncio

import pytest

from millrace.task.v1.task_pb2 import Outcome, Task, Timings
from services.chassis.kafka import KafkaAwayError
from services.tasklog import ending
from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.adapters.memory_usage_log import MemoryUsageLog
from services.tasklog.core.entries import Delta, Fenced, Header, Lost, Terminal
from services.tasklog.core.ids import FIRST_OF_A_DISPATCHER, attempt_of_a_try
from services.tasklog.core.reading import Cursor, End, Restarted, Text
from services.tasklog.ending import Destinations, TaskEnded, answer_from_cache, end_of_task, end_without_worker
from services.tasklog.ports import RedisAwayError, RunChangedError

DONE = Outcome(finish_reason="stop", timings=Timings(total_s=1.5))
DISPATCHER = FIRST_OF_A_DISPATCHER
MUCH_LATER = attempt_of_a_try(1, 4e9)  # the attempt of a router in a hundred years
CANCELLED = Outcome(finish_reason="cancelled")


class Answers:
    """An answer store that keeps, fails, or hangs."""

    def __init__(self, trouble=None):
        self.stored, self.trouble = [], trouble

    async def store(self, task, text, outcome):
        if self.trouble == "slow":
            await asyncio.sleep(3600)
        if self.trouble:
            raise self.trouble
        self.stored.append((task.id, text, outcome))


class World:
    """Memory adapters and a task; the clock of the log is `now`."""

    def __init__(self, answers=None):
        self.now = 0.0
        self.log, self.usage, self.answers = MemoryTokenLog(lambda: self.now), MemoryUsageLog(), answers
        self.task = Task(id="t", tenant="acme")
        self.to = Destinations(self.log, self.usage, answers)

    async def begin(self, attempt):
        header = Header(attempt, "w", f"nonce {attempt}", self.log.run_id)
        return await self.log.begin("t", header, 1000)

    async def append(self, *entries):
        return await self.log.append(self.log.run_id, [("t", entry) for entry in entries])

    async def shown(self):
        return Cursor().take_log(await self.log.read("t"))


async def test_the_end_routine_stores_the_answer_writes_usage_and_lets_the_log_expire():
    """In 300 seconds, or as long as the task wants its answer kept unread."""
    for retention, kept_s in ((None, 300), (20, 20)):
        world = World(Answers())
        world.task.cache_ticket.key = b"key"
        if retention:
            world.task.retention.FromSeconds(retention)
        await world.begin(1)
        await world.append(Delta(1, 1, 0, 2, "Hi"), Terminal(1, 1, 2, DONE))
        await end_of_task(world.to, world.task, 1, "Hi", DONE)
        assert world.answers.stored == [("t", "Hi", DONE)]
        assert [(r.task, r.gen, r.tenant, r.outcome) for r in world.usage.records] == [("t", 1, "acme", DONE)]
        world.now = kept_s - 1
        assert await world.log.read("t")
        world.now = kept_s
        assert not await world.log.read("t")


async def test_the_end_routine_may_be_run_again():
    """Whoever takes over repeats it; usage readers see one record."""
    world = World()
    for _ in range(3):
        await end_of_task(world.to, world.task, 1, "Hi", DONE)
    assert len({record.SerializeToString(deterministic=True) for record in world.usage.records}) == 1


async def test_a_task_without_a_ticket_is_not_offered_to_the_cache():
    """Nobody asked for it."""
    world = World(Answers())
    await end_of_task(world.to, world.task, 1, "Hi", DONE)
    assert world.answers.stored == []


@pytest.mark.parametrize("trouble", [ConnectionError("gone"), ValueError("odd"), "slow"])
async def test_a_cache_in_trouble_does_not_hold_up_an_end(trouble, monkeypatch):
    """It costs a later miss."""
    monkeypatch.setattr(ending, "STORE_S", 0.01)
    world = World(Answers(trouble))
    world.task.cache_ticket.key = b"key"
    await end_of_task(world.to, world.task, 1, "Hi", DONE)
    assert len(world.usage.records) == 1


async def test_the_end_waits_for_kafka_and_redis_as_long_as_the_caller_wants():
    """It goes on by itself when they are back, and raises when patience is used up."""
    world = World()
    world.usage.away = world.log.away = True
    with pytest.raises(KafkaAwayError):
        await end_of_task(world.to, world.task, 1, "Hi", DONE, patience_s=0)
    end = asyncio.create_task(end_of_task(world.to, world.task, 1, "Hi", DONE))
    await asyncio.sleep(0.01)
    world.usage.away = False
    async with asyncio.timeout(5):
        while not world.usage.records:
            await asyncio.sleep(0.01)
        assert not end.done()
        world.log.away = False
        await end
    world.log.away = True
    with pytest.raises(RedisAwayError):
        await end_of_task(world.to, world.task, 1, "Hi", DONE, patience_s=0)


async def test_a_task_that_never_reached_a_worker_ends_with_a_typed_end():
    """Log, end, usage: readers need nobody else."""
    world = World()
    ended = await end_without_worker(world.to, world.task, 7, "dispatcher-1", CANCELLED)
    assert ended == TaskEnded(world.log.run_id, 7, "", CANCELLED)
    assert await world.shown() == [End(7, 0, CANCELLED)]
    assert world.usage.newest()["t"].outcome == CANCELLED


async def test_text_of_an_earlier_attempt_stays_when_a_dispatcher_ends_the_task():
    """The answer so far is good, if incomplete; the old worker can add nothing to it."""
    world = World()
    await world.begin(1)
    await world.append(Delta(1, 1, 0, 3, "aü"))
    ended = await end_without_worker(world.to, world.task, 7, "dispatcher-1", CANCELLED)
    assert ended == TaskEnded(world.log.run_id, 1, "aü", CANCELLED)
    assert await world.shown() == [Text(1, 3, "aü"), End(1, 3, CANCELLED)]
    assert await world.append(Delta(1, 1, 3, 4, "x")) == [Fenced()]


async def test_text_that_redis_may_have_forgotten_does_not_stay():
    """Readers may hold more of it; the end belongs to a new, empty text."""
    world = World()
    await world.begin(1)
    await world.append(Delta(1, 1, 0, 3, "aü"))
    world.log.restart()
    ended = await end_without_worker(world.to, world.task, 7, "dispatcher-1", CANCELLED)
    assert ended == TaskEnded(world.log.run_id, 7, "", CANCELLED)
    assert await world.shown() == [End(7, 0, CANCELLED)]


async def test_a_worker_that_dies_between_the_terminal_entry_and_the_end_of_the_end_routine_leaves_usage_complete_once():
    """Whoever comes next finds the end, runs the routine again, and does not end the task differently."""
    world = World()
    await world.begin(1)
    await world.append(Delta(1, 1, 0, 2, "Hi"), Terminal(1, 1, 2, DONE))
    ended = await end_without_worker(world.to, world.task, 7, "dispatcher-1", CANCELLED)
    assert ended == TaskEnded(world.log.run_id, 1, "Hi", DONE)
    assert await world.shown() == [Text(1, 2, "Hi"), End(1, 2, DONE)]
    assert [(record.gen, record.outcome) for record in world.usage.records] == [(1, DONE)]


async def test_who_is_fenced_ends_nothing():
    """A newer owner has the task."""
    world = World()
    await world.begin(DISPATCHER + 9)
    assert await end_without_worker(world.to, world.task, DISPATCHER + 7, "dispatcher-1", CANCELLED) == Fenced()
    assert await answer_from_cache(world.to, world.task, 1, "router-1", text="Hi", outcome=DONE) == Fenced()
    assert world.usage.records == []
    assert await world.shown() == []


async def test_who_meets_another_run_ends_nothing():
    """Redis changed between the header and the end."""
    world = World()

    async def restart():
        world.log.restart()

    world.log = MemoryTokenLog(between=restart)
    with pytest.raises(RunChangedError):
        await end_without_worker(Destinations(world.log, world.usage), world.task, 7, "d", CANCELLED)
    assert world.usage.records == []


async def test_a_log_that_vanishes_meanwhile_is_lost():
    """Not written again blindly."""
    world = World()

    async def expire():
        world.now += 10_000

    world.log = MemoryTokenLog(lambda: world.now, between=expire)
    to = Destinations(world.log, world.usage)
    assert await end_without_worker(to, world.task, 7, "d", CANCELLED) == Lost()
    assert await answer_from_cache(to, world.task, 1, "r", text="Hi", outcome=DONE) == Lost()
    assert world.usage.records == []


@pytest.mark.parametrize("text", ["aü", ""])
async def test_a_cache_hit_has_the_life_of_any_task(text):
    """Header, text, end, usage; also an answer that is empty."""
    world = World()
    end = len(text.encode())
    ended = await hit(world, 1, text)
    assert (ended.run_id, ended.text, ended.outcome) == (world.log.run_id, text, DONE)
    assert await world.shown() == [Text(ended.gen, end, text)] * bool(text) + [End(ended.gen, end, DONE)]
    assert world.usage.newest()["t"].outcome == DONE
    assert ended.gen < DISPATCHER


async def test_a_cache_hit_that_is_tried_again_keeps_the_end_it_has():
    """The router died after it logged the end; another answer may be in the cache by now."""
    world = World()
    first = await hit(world, 1, "Hi")
    await asyncio.sleep(0.002)
    assert await hit(world, 2, "Hello") == first
    assert await world.shown() == [Text(first.gen, 2, "Hi"), End(first.gen, 2, DONE)]


async def test_a_cache_hit_that_redis_forgot_comes_back_as_another_text():
    """Its readers hold bytes of the first; the tries are counted from one again, the gen is not the same."""
    world = World()
    first = await hit(world, 1, "Hi")
    reader = Cursor()
    reader.take_log((await world.log.read("t"))[:2])
    world.log.forget(seconds=1)
    await asyncio.sleep(0.002)
    second = await hit(world, 1, "Other")
    assert second.gen > first.gen
    assert reader.take_log(await world.log.read("t"))[:2] == [Restarted(second.gen), Text(second.gen, 5, "Other")]


async def test_a_cache_hit_never_continues_another_text():
    """An attempt before it left some other text: a new one begins, and its readers are told."""
    world = World()
    await world.begin(1)
    await world.append(Delta(1, 1, 0, 2, "He"))
    ended = await hit(world, 2, "Hello")
    assert ended.gen > 1
    assert await world.shown() == [Text(ended.gen, 5, "Hello"), End(ended.gen, 5, DONE)]


async def test_a_cache_hit_goes_on_from_the_same_text():
    """A try that died between text and end leaves nothing to restart."""
    world = World()
    await world.begin(1)
    await world.append(Delta(1, 1, 0, 2, "Hi"))
    assert (await hit(world, 2, "Hi")).gen == 1


async def test_of_two_tries_at_once_the_overtaken_one_does_not_know_the_end():
    """The other may yet fail, so nothing is acknowledged on its account."""
    world = World()

    async def overtake():
        if not others:
            others.append(header := Header(MUCH_LATER, "router-2", "nonce", world.log.run_id))
            await world.log.begin("t", header, 100)

    others = []
    world.log = MemoryTokenLog(between=overtake)
    world.to = Destinations(world.log, world.usage)
    assert await hit(world, 1, "Hi") == Lost()
    assert world.usage.records == []


async def hit(world, tries, text):
    return await answer_from_cache(world.to, world.task, tries, "router-1", text=text, outcome=DONE)
