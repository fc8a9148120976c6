"""The dispatcher in process: lanes, leases, logs in memory; workers and gateways over loopback gRPC."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from google.protobuf.message import Message

from millrace.dispatch.v1 import dispatch_pb2
from millrace.dispatch.v1.dispatch_pb2 import (
    Assign,
    Finished,
    Hello,
    Need,
    SignalsRequest,
    TaskStatus,
    WorkerEvent,
    WorkerMessage,
)
from millrace.frames.v1.frames_pb2 import FrameBatch
from millrace.task.v1.task_pb2 import (
    CACHE_MARK_COALESCED,
    OUTCOME_KIND_CANCELLED,
    OUTCOME_KIND_COMPLETED,
    OUTCOME_KIND_EXPIRED,
    OUTCOME_KIND_FAILED,
    PRIORITY_CLASS_BATCH,
    PRIORITY_CLASS_CRITICAL,
    PRIORITY_CLASS_STANDARD,
    Outcome,
    Route,
    Task,
    Usage,
)
from services.chassis.framed_client import RefusedError, dial
from services.chassis.framing import method
from services.chassis.resp import RedisAwayError
from services.dispatcher.core.task_table import TaskTable
from services.dispatcher.ports import Held
from services.gateway.reading.reader import Reader
from services.gateway.reading.readers import Readers
from services.pools.signals_listener import SignalsListener
from services.tasklog.core import outcomes
from services.tasklog.core.entries import AppendResult, Delta, Fenced, Header, Terminal, Written
from services.tasklog.core.reading import Cursor, End, Restarted, Text
from services.worker.ports import EngineChunk, EngineRequest
from tests.support.dispatch_room import FAST, POOL, FakeWorker, Room, answer, fail
from tests.support.gateway_lab import BOOT, LabSignals
from tests.support.waiting import eventually
from tests.support.worker_room import WorkerRoom

PATIENT = replace(FAST, silence_s=10.0)  # no worker is given up because this machine stands still for a moment


async def test_an_accepted_task_runs_once_and_its_offset_is_committed():
    """A task goes from its record to a worker, ends once, and its offset is committed after the horizon."""
    async with Room() as room:
        await room.dispatcher()
        worker = await room.worker()
        task = await room.submit()
        assert (await room.ended(task)).outcome.kind == OUTCOME_KIND_COMPLETED
        await eventually(lambda: room.committed() == 1)
        assert [a.task.id for a in worker.ran] == [task.id]
        assert worker.acknowledged == [task.id]
        control = await room.control.get(task.id)
        assert control
        assert control.state == "ended"
        assert len(room.usage.records) == 1


async def test_a_poisoned_task_stops_after_its_attempts_and_blocks_nobody():
    """A task that fails each time is buried after `max_attempts` with its history; others go on meanwhile."""
    async with Room(max_attempts=3) as room:
        dispatcher = await room.dispatcher()

        async def behave(worker: FakeWorker, assign: Assign) -> Finished | None:
            return await (fail() if assign.task.id == "poison" else answer("fine"))(worker, assign)

        workers = [await room.worker(name, slots=1, behave=behave) for name in ("w1", "w2")]
        poison = await room.submit(room.task("poison"))
        others = [await room.submit() for _ in range(10)]
        end = await room.ended(poison)
        assert end.outcome.kind == OUTCOME_KIND_FAILED
        assert end.outcome.error_code == "engine_failed"
        for task in others:
            assert (await room.ended(task)).outcome.kind == OUTCOME_KIND_COMPLETED
        ran = [a.task.id for w in workers for a in w.ran]
        assert ran.count("poison") == 3
        assert [d.task.id for d in room.lanes.dead] == ["poison"]
        assert len(room.lanes.dead[0].history) == 3
        assert dispatcher.actor.owner.scheduler.table.dead == 1
        await eventually(lambda: room.committed() == 11)


async def test_a_task_that_takes_its_worker_down_twice_is_buried():
    """Two workers lost in a row while the task had just started: it is not given to a third."""
    async with Room() as room:
        await room.dispatcher()

        async def die(worker: FakeWorker, assign: Assign) -> Finished | None:
            await asyncio.Event().wait()
            return None

        workers = {name: await room.worker(name, behave=die) for name in ("w1", "w2", "w3")}
        task = await room.submit()
        for _ in range(2):
            await eventually(lambda: any(w.running for w in workers.values()))
            await eventually(lambda: table(room).tasks[task.id].started)
            await workers.pop(table(room).tasks[task.id].worker).stop()
        end = await room.ended(task)
        assert end.outcome.kind == OUTCOME_KIND_FAILED
        assert "took its worker down" in end.outcome.error_message
        assert len(room.lanes.dead) == 1


async def test_an_owner_whose_lease_redis_handed_back_takes_a_new_epoch():
    """A new Redis run id makes the owner give the pool up and take it again under a higher epoch; work goes on."""
    async with Room() as room:
        dispatcher = await room.dispatcher()
        hold = asyncio.Event()
        worker = await room.worker(behave=answer("hello", hold=hold))
        task = await room.submit()
        await eventually(lambda: worker.running)
        before = dispatcher.actor.owner.epoch
        room.log.restart()
        await eventually(lambda: dispatcher.owns and dispatcher.actor.owner.epoch > before)
        await eventually(lambda: worker.highest_epoch > before)
        (attempt,) = worker.running.values()
        await worker.say(WorkerEvent(need=Need(task=task.id, attempt=attempt, run_id=room.log.run_id)))
        await eventually(lambda: len(worker.ran) == 2)
        assert worker.ran[1].attempt >> 20 == dispatcher.actor.owner.epoch
        assert worker.ran[1].previous_attempt == attempt
        assert worker.ran[1].run_id == room.log.run_id != worker.ran[0].run_id
        hold.set()
        await room.ended(task)


async def test_a_worker_that_saw_a_higher_epoch_makes_the_owner_take_a_higher_one():
    """An owner whose Redis forgot the highest epoch learns it from a worker's Hello."""
    async with Room() as room:
        dispatcher = await room.dispatcher()
        await eventually(lambda: dispatcher.owns)
        high = dispatcher.actor.owner.epoch + 10**6
        worker = FakeWorker(room, "w1", 4, answer("hello"))
        worker._keep_attached = _attach_regardless.__get__(worker)
        worker.highest_epoch = high
        worker.start()
        try:
            await eventually(lambda: dispatcher.owns and dispatcher.actor.owner.epoch > high)
            task = await room.submit()
            await room.ended(task)
        finally:
            await worker.stop()


async def _attach_regardless(self: FakeWorker) -> None:
    while True:
        if owner := self.room.leases.owner(POOL):
            with contextlib.suppress(OSError, TimeoutError):
                await self._attach(owner.address)
        await asyncio.sleep(0.02)


async def test_two_dispatchers_that_both_believe_they_own_a_pool_never_show_one_task_twice_to_the_client():
    """A zombie owner's attempts carry a lower epoch: the log refuses them once the new owner's attempt began."""
    begun, whole = "zombie says ", "zombie says this, once"
    release, finish = asyncio.Event(), asyncio.Event()
    refused: list[AppendResult] = []

    async def outlived(worker: FakeWorker, assign: Assign) -> None:
        """Begin, be slow, and then write text and end as if nothing had happened."""
        log, task, attempt = room.log, assign.task.id, assign.attempt
        if isinstance(await log.begin(task, Header(attempt, worker.name, str(attempt), log.run_id), 60.0), Fenced):
            return
        first = Delta(attempt, attempt, 0, len(begun), begun)
        assert await log.append(log.run_id, [(task, first)]) == [Written()]
        await release.wait()
        rest = Delta(attempt, attempt, first.end, len(whole), whole[first.end :])
        outcome = outcomes.completed("stop", Usage(), outcomes.timings(assign.task, 0.0))
        end = Terminal(attempt, attempt, rest.end, outcome)
        refused.extend(await log.append(log.run_id, [(task, rest), (task, end)]))

    async with Room(pace=PATIENT, lease_s=30.0) as room:
        zombie = await room.dispatcher("d1")
        slow = await room.worker("w1", behave=outlived)
        task = await room.submit()
        page = LogReader(room, task)
        await eventually(page.reads(begun))
        old = zombie.actor.owner
        lease = zombie.actor._world.lease

        async def believe(held: Held) -> Held:
            return Held(held.epoch, held.run_id, float("inf"))

        lease.renew = believe
        await eventually(lambda: old._own.held.until == float("inf"))
        room.leases.owners.clear()
        fresh = await room.dispatcher("d2")
        await eventually(lambda: fresh.owns)
        quick = await room.worker("w2", behave=answer(whole, hold=finish))
        await eventually(page.reads(whole))
        new = fresh.actor.owner
        assert new.epoch > old.epoch
        assert [assign.attempt >> 20 for assign in quick.ran] == [new.epoch]
        assert zombie.actor.owner is old
        assert old.holds()

        release.set()
        await eventually(lambda: refused)
        assert refused == [Fenced(), Fenced()]
        assert [assign.attempt >> 20 for assign in slow.ran] == [old.epoch]
        both = await room.submit()  # both give it to their worker
        await eventually(lambda: len(slow.ran) == len(quick.ran) == 2)
        finish.set()
        for given in (task, both):
            await room.ended(given)
            late = LogReader(room, given)
            await eventually(late.reads(whole))
            assert (late.restarts, late.ends) == (0, 1)
            assert sum(isinstance(entry, Terminal) for entry in await room.log.read(given.id)) == 1
        await eventually(page.reads(whole))
        assert (page.restarts, page.ends) == (0, 1)
        assert sorted(record.task for record in room.usage.records) == sorted((task.id, both.id))


async def test_a_finished_task_behind_an_unfinished_one_does_not_run_again_after_a_takeover():
    """The commit's metadata names what is finished above the committed offset, so the next owner skips it."""
    async with Room() as room:
        first = await room.dispatcher("d1")
        hold = asyncio.Event()

        async def behave(worker: FakeWorker, assign: Assign) -> Finished | None:
            text, wait = ("slow", hold) if assign.task.id == "slow" else ("quick", None)
            return await answer(text, hold=wait)(worker, assign)

        worker = await room.worker(slots=4, behave=behave)
        slow = await room.submit(room.task("slow"))
        others = [await room.submit() for _ in range(5)]
        for task in others:
            await room.ended(task)
        await eventually(lambda: room.lanes.commits[slow.priority_class, 0].metadata)
        await eventually(lambda: len(first.actor.owner.scheduler.table.tasks) == 1)
        await asyncio.sleep(0.05)
        assert room.committed() == 0
        usage = len(room.usage.records)
        await first.die()
        second = await room.dispatcher("d2")
        await eventually(lambda: second.owns and worker.attached.is_set())
        await eventually(lambda: second.actor.owner.scheduler.table.tasks)
        assert set(second.actor.owner.scheduler.table.tasks) == {"slow"}
        hold.set()
        await room.ended(slow)
        await eventually(lambda: room.committed() == 6)
        assert Counter(a.task.id for a in worker.ran).most_common(1)[0][1] == 1
        assert len(room.usage.records) == usage + 1


async def test_a_takeover_adopts_what_workers_run():
    """A new owner leaves a running task with its worker, under the attempt number that the old owner gave."""
    async with Room() as room:
        first = await room.dispatcher("d1")
        hold = asyncio.Event()
        worker = await room.worker(behave=answer("hello", hold=hold))
        other = await room.worker("w2", behave=answer("hello", hold=hold))
        tasks = [await room.submit() for _ in range(6)]
        await eventually(lambda: len(worker.running) + len(other.running) == 6)
        await first.die()
        second = await room.dispatcher("d2")
        await eventually(lambda: second.owns and second.actor.owner.scheduler.roster.busy == 6)
        hold.set()
        for task in tasks:
            await room.ended(task)
        await eventually(lambda: room.committed() == 6)
        assert len(worker.ran) + len(other.ran) == 6


async def test_a_redis_restart_that_forgets_the_last_second_loses_no_finished_task_commit_horizon():
    """An end that Redis forgot is not committed; the task ends again, and only then is it."""
    async with Room() as room:
        await room.dispatcher()
        worker = await room.worker()
        task = await room.submit()
        await room.ended(task)
        await eventually(lambda: worker.acknowledged)
        room.log.forget(seconds=5.0)
        room.control.forget()
        assert room.committed() == 0
        await room.ended(task)
        await eventually(lambda: room.committed() == 1)
        assert len(worker.ran) == 2


async def test_an_end_that_redis_forgot_is_not_written_down_as_ended():
    """Redis restarts between the worker's `Finished` and the owner's note: the note would bury a task without an answer."""
    async with Room() as room:
        await room.dispatcher()
        await room.worker()
        write = room.control.ended
        forgotten = asyncio.Event()

        async def away_once(task: str) -> None:
            if not forgotten.is_set():
                forgotten.set()
                room.log.forget(seconds=60.0)
                raise RedisAwayError("the connection broke")
            await write(task)

        room.control.ended = away_once
        task = await room.submit()
        await forgotten.wait()
        assert await room.log.read(task.id) == []
        assert (await room.ended(task)).outcome.kind == OUTCOME_KIND_COMPLETED
        await eventually(lambda: room.committed() == 1)


async def test_a_worker_that_holds_a_forgotten_text_gets_the_next_attempt():
    """Need: the next attempt goes to the worker that asks, with its own as the previous one, whatever its credits."""
    async with Room() as room:
        dispatcher = await room.dispatcher()
        hold = asyncio.Event()
        worker = await room.worker(slots=1, behave=answer("hello", hold=hold))
        task = await room.submit()
        await eventually(lambda: worker.running)
        attempt = worker.running[task.id]
        await worker.say(WorkerEvent(need=Need(task=task.id, attempt=attempt, run_id=room.log.run_id)))
        await eventually(lambda: len(worker.ran) == 2)
        assert worker.ran[1].previous_attempt == attempt
        assert worker.ran[1].attempt == attempt + 1
        hold.set()
        await room.ended(task)
        assert dispatcher.owns


async def test_tasks_of_a_lost_worker_go_on_elsewhere():
    """A worker that is killed is missed after its silence; the next attempt continues its text at another worker."""
    async with Room() as room:
        await room.dispatcher()
        first = await room.worker("w1", behave=answer("hel", hold=asyncio.Event()))
        task = await room.submit()
        await eventually(lambda: first.running)
        await asyncio.sleep(0.05)
        second = await room.worker("w2", behave=answer("hello"))
        await first.stop()
        end = await room.ended(task)
        assert end.offset == 5
        assert second.ran[0].attempts == 2
        assert second.ran[0].previous_attempt == 0


async def test_a_task_handed_back_runs_elsewhere_without_counting():
    """Drain: an attempt that is handed back is no failure, however often."""
    async with Room(max_attempts=1) as room:
        await room.dispatcher()
        times = 0

        async def behave(worker: FakeWorker, assign: Assign) -> Finished | None:
            nonlocal times
            times += 1
            if times <= 3:
                return Finished(task=assign.task.id, attempt=assign.attempt, handed_back=True)
            return await answer("done")(worker, assign)

        await room.worker(behave=behave)
        task = await room.submit()
        assert (await room.ended(task)).outcome.kind == OUTCOME_KIND_COMPLETED
        assert times == 4


async def test_a_waiting_task_whose_deadline_passes_ends_expired_without_any_worker():
    """Nobody attached: the dispatcher itself ends the task, once, with usage."""
    async with Room() as room:
        await room.dispatcher()
        task = await room.submit(room.task(deadline_s=0.2))
        end = await room.ended(task)
        assert end.outcome.kind == OUTCOME_KIND_EXPIRED
        assert end.outcome.error_code == "expired"
        await eventually(lambda: room.committed() == 1)
        assert len(room.usage.records) == 1


async def test_a_task_that_cannot_meet_its_deadline_never_reaches_an_engine():
    """Once the pool knows how long tasks take, one with less time left ends `expired` at its turn."""
    async with Room() as room:
        dispatcher = await room.dispatcher()
        worker = await room.worker()
        await eventually(lambda: dispatcher.owns)
        for _ in range(30):
            dispatcher.actor.owner.scheduler.times.learn(room.task().priority_class, 30.0, 5.0)
        task = await room.submit(room.task(deadline_s=2.0))
        assert (await room.ended(task)).outcome.kind == OUTCOME_KIND_EXPIRED
        assert worker.ran == []


async def test_a_cancelled_task_that_waits_is_ended_here():
    """The wish in Redis is the truth; a task that waited is looked at before its turn."""
    async with Room() as room:
        await room.dispatcher()
        task = await room.submit()
        await room.log.wish_cancel(task.id, 60.0)
        await asyncio.sleep(0.3)
        worker = await room.worker()
        assert (await room.ended(task)).outcome.kind == OUTCOME_KIND_CANCELLED
        assert worker.ran == []


async def test_a_follower_takes_no_slot_and_ends_with_its_leaders_answer():
    """A coalesced twin's log names its leader; its end has the leader's text and the mark `coalesced`."""
    async with Room() as room:
        await room.dispatcher()
        hold = asyncio.Event()
        worker = await room.worker(slots=1, behave=answer("shared", hold=hold))
        leader = await room.submit()
        twins = [await room.submit(room.task(joined=leader.id)) for _ in range(3)]
        await eventually(lambda: worker.running)
        for twin in twins:
            entries = await eventually(partial(room.log.read, twin.id))
            assert [e.follows for e in entries if isinstance(e, Header)] == [leader.id]
        hold.set()
        led = await room.ended(leader)
        for twin in twins:
            end = await room.ended(twin)
            assert end.outcome.kind == OUTCOME_KIND_COMPLETED
            assert end.outcome.cache == CACHE_MARK_COALESCED
            assert (end.gen, end.offset) == (led.gen, len("shared"))
        await eventually(lambda: room.committed() == 4)
        assert len(worker.ran) == 1


async def test_when_a_leader_ends_without_an_answer_one_follower_leads():
    """The first twin runs, the others follow it, and all of them end with its answer."""
    async with Room(max_attempts=1) as room:
        await room.dispatcher()
        hold = asyncio.Event()

        async def behave(worker: FakeWorker, assign: Assign) -> Finished | None:
            if assign.task.id == "leader":
                await hold.wait()
                return Finished(task="leader", attempt=assign.attempt, failure="no")
            return await answer("shared")(worker, assign)

        worker = await room.worker(behave=behave)
        leader = await room.submit(room.task("leader"))
        twins = [await room.submit(room.task(joined="leader")) for _ in range(3)]
        await eventually(lambda: len(table(room).followers.of("leader")) == 3)
        hold.set()
        assert (await room.ended(leader)).outcome.kind == OUTCOME_KIND_FAILED
        for twin in twins:
            assert (await room.ended(twin)).outcome.kind == OUTCOME_KIND_COMPLETED
        assert [a.task.id for a in worker.ran] == ["leader", twins[0].id]


async def test_followers_keep_following_over_a_takeover():
    """A new owner finds leader and followers again: the leader stays where it runs, the followers end with its answer."""
    async with Room() as room:
        dispatcher = await room.dispatcher()
        hold = asyncio.Event()
        worker = await room.worker(slots=1, behave=answer("shared", hold=hold))
        leader = await room.submit()
        twins = [await room.submit(room.task(joined=leader.id)) for _ in range(3)]
        await eventually(lambda: worker.running and len(table(room).followers.of(leader.id)) == 3)
        before = dispatcher.actor.owner.epoch
        room.leases.owners.clear()
        await eventually(lambda: dispatcher.owns and dispatcher.actor.owner.epoch > before)
        hold.set()
        for twin in twins:
            assert (await room.ended(twin)).outcome.cache == CACHE_MARK_COALESCED
        await eventually(lambda: room.committed() == 4)
        assert len(worker.ran) == 1


async def test_followers_of_a_leader_that_ended_during_a_takeover_get_its_answer():
    """The leader ends while nobody owns the pool: the next owner finds its end in its log."""
    async with Room() as room:
        dispatcher = await room.dispatcher()
        hold = asyncio.Event()
        worker = await room.worker(slots=1, behave=answer("shared", hold=hold))
        leader = await room.submit()
        twins = [await room.submit(room.task(joined=leader.id)) for _ in range(3)]
        await eventually(lambda: worker.running and len(table(room).followers.of(leader.id)) == 3)
        before = dispatcher.actor.owner.epoch
        room.leases.owners.clear()
        hold.set()
        await room.ended(leader)
        await eventually(lambda: dispatcher.owns and dispatcher.actor.owner.epoch > before)
        for twin in twins:
            assert (await room.ended(twin)).outcome.cache == CACHE_MARK_COALESCED
        await eventually(lambda: room.committed() == 4)


async def test_a_wish_that_a_worker_read_stops_a_task_that_nobody_follows():
    """The owner that knows the followers answers; a hint of a gateway is not needed."""
    async with Room(pace=PATIENT) as room:
        await room.dispatcher()
        worker = await room.worker(behave=answer("x", hold=asyncio.Event()))
        task = await room.submit()
        await eventually(lambda: worker.running)
        await worker.progress(worker.ran[0], 10, cancel_wished=True)
        await eventually(lambda: worker.stopped == [task.id])


async def test_a_cancelled_leader_breaks_no_followers_stream():
    """One client leaves: the others read on under the same gen, without a restart, to one end each."""
    async with Room(pace=PATIENT) as room, heard_twins(room) as (engine, cancel, leader, pages, twins):
        await cancel(leader)
        await eventually(lambda: table(room).tasks[leader.id].cancel_wished)
        engine.feed("and ")
        await eventually(lambda: all(page.text == "shared and " for page in pages))  # logged with the wish beside it
        engine.feed("whole", "stop")
        led = await room.ended(leader)
        assert led.outcome.kind == OUTCOME_KIND_COMPLETED
        for page, twin in zip(pages, twins, strict=True):
            await eventually(lambda page=page: page.ends)
            assert (page.text, page.gen, page.restarts) == ("shared and whole", led.gen, 0)
            assert [end.cache for end in page.ends] == [CACHE_MARK_COALESCED]
            assert (await room.ended(twin)).gen == led.gen
        await eventually(lambda: room.committed() == 3)
        assert sorted((r.task, r.gen) for r in room.usage.records) == sorted((t.id, led.gen) for t in (leader, *twins))
        assert len(engine.requests) == 1


async def test_a_leader_and_its_followers_are_cancelled_together():
    """When the last of them is, the engine stops; everybody's end says cancelled."""
    async with Room(pace=PATIENT) as room, heard_twins(room) as (engine, cancel, leader, _, twins):
        for task in (leader, *twins):
            assert not engine.stopped
            await cancel(task)
            if task is not leader:
                assert (await room.ended(task)).outcome.kind == OUTCOME_KIND_CANCELLED
        assert (await room.ended(leader)).outcome.kind == OUTCOME_KIND_CANCELLED
        await eventually(lambda: engine.stopped)
        await eventually(lambda: room.committed() == 3)
        assert sorted(r.task for r in room.usage.records) == sorted(t.id for t in (leader, *twins))


async def test_a_new_owner_learns_from_the_worker_that_a_leader_is_cancelled():
    """The wish outlives the owner that heard of it, and so does the reason why it waits."""
    async with Room(pace=PATIENT) as room, SignalsListener(Lookup(room)) as listener:
        listener.follow([POOL])
        dispatcher = await room.dispatcher()
        worker = await room.worker(slots=1, behave=answer("shared", hold=asyncio.Event()))
        leader = await room.submit()
        twin = await room.submit(room.task(joined=leader.id))
        await eventually(lambda: worker.running and table(room).followers.of(leader.id))
        before = dispatcher.actor.owner.epoch
        room.leases.owners.clear()
        await eventually(lambda: dispatcher.owns and dispatcher.actor.owner.epoch > before)

        async def heard() -> bool:
            await worker.progress(worker.ran[0], 10, cancel_wished=True)
            state = table(room).get(leader.id)
            return state is not None and state.cancel_wished

        await eventually(heard)
        await eventually(lambda: table(room).followers.of(leader.id))
        assert not worker.stopped
        await room.log.wish_cancel(twin.id, 60.0)
        listener.cancel(POOL, twin.id)
        assert (await room.ended(twin)).outcome.kind == OUTCOME_KIND_CANCELLED
        await eventually(lambda: worker.stopped == [leader.id])


async def test_a_follower_of_a_leader_nobody_knows_leads_itself():
    """The leader's record never comes and its claim is gone: the follower runs."""
    async with Room() as room:
        await room.dispatcher()
        await room.worker()
        twin = await room.submit(room.task(joined="nobody"))
        assert (await room.ended(twin)).outcome.kind == OUTCOME_KIND_COMPLETED


async def test_a_repeated_record_runs_once():
    """A produce that was retried left two records: both offsets are finished by one run."""
    async with Room() as room:
        await room.dispatcher()
        worker = await room.worker()
        task = await room.submit()
        room.lanes.append(task)
        await room.ended(task)
        await eventually(lambda: room.committed() == 2)
        room.lanes.append(task)
        await eventually(lambda: room.committed() == 3)
        assert len(worker.ran) == 1
        assert len(room.usage.newest()) == 1


async def test_critical_work_goes_first():
    """Whatever waited longer, a critical task has the next free slot."""
    async with Room() as room:
        dispatcher = await room.dispatcher()
        await eventually(lambda: dispatcher.owns)
        for _ in range(5):
            await room.submit(room.task(priority_class=PRIORITY_CLASS_BATCH))
        urgent = await room.submit(room.task(priority_class=PRIORITY_CLASS_CRITICAL))
        await eventually(lambda: len(table(room).queue) == 6)
        worker = await room.worker(slots=1)
        await room.ended(urgent)
        assert worker.ran[0].task.id == urgent.id


async def test_four_tenants_one_at_twenty_times_the_load_get_equal_shares():
    """Jain's index over tokens served, while all of them wait, is at least 0.98."""
    async with Room() as room:
        dispatcher = await room.dispatcher()
        await eventually(lambda: dispatcher.owns)
        served: Counter[str] = Counter()
        enough = asyncio.Event()

        async def behave(worker: FakeWorker, assign: Assign) -> Finished | None:
            finished = await answer("x", tokens=assign.task.estimated_output_tokens)(worker, assign)
            served[assign.task.tenant] += 10 + 2 * assign.task.estimated_output_tokens
            if sum(served.values()) > 60 * 4 * 30:
                enough.set()
                await asyncio.Event().wait()
            return finished

        for number in range(100):
            for tenant in ("bert", "cora", "dora", *["anna"] * 20):
                await room.submit(room.task(tenant=tenant, tokens=5 + number % 11))
            await asyncio.sleep(0)
        await eventually(lambda: len(table(room).queue) == 2300)
        await room.worker(slots=8, behave=behave)
        await enough.wait()
        shares = list(served.values())
        jain = sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares))
        assert jain >= 0.98, served


async def test_a_polite_owner_is_replaced_at_once():
    """At a stop it commits, gives the lease up and closes its streams: the standby need not wait for the lease to end."""
    async with Room(lease_s=30.0) as room:
        first = await room.dispatcher("d1")
        await eventually(lambda: first.owns)
        second = await room.dispatcher("d2")
        worker = await room.worker()
        await room.ended(await room.submit())
        assert not second.owns
        await first.pools.leave()
        await eventually(lambda: second.owns and worker.highest_epoch == second.actor.owner.epoch)
        await room.ended(await room.submit())


async def test_a_stopped_owner_wakes_as_a_stranger():
    """A process that slept over the end of its lease assigns and commits nothing, before it has asked anybody."""
    async with Room() as room:
        dispatcher = await room.dispatcher()
        worker = await room.worker()
        await eventually(lambda: dispatcher.owns and worker.attached.is_set())
        own = dispatcher.actor.owner._own
        own.held = type(own.held)(own.held.epoch, own.held.run_id, 0.0)  # what the clock says after a long sleep
        room.leases.owners.clear()  # and what Redis says
        assert not own.holds()
        epoch = dispatcher.actor.owner.epoch
        task = await room.submit()
        await room.ended(task)
        assert [assign.attempt >> 20 > epoch for assign in worker.ran] == [True]


async def test_a_straggler_is_produced_again_so_that_commits_go_on(monkeypatch):
    """A long answer does not hold up the offsets behind it; its copy at the tail is the same task."""
    monkeypatch.setattr("services.dispatcher.core.offsets.CROWDED", 20)
    async with Room() as room:
        await room.dispatcher()
        hold = asyncio.Event()

        async def behave(worker: FakeWorker, assign: Assign) -> Finished | None:
            return await answer("text", hold=hold if assign.task.id == "long" else None)(worker, assign)

        worker = await room.worker(behave=behave)
        long = await room.submit(room.task("long"))
        others = [await room.submit() for _ in range(30)]
        for task in others:
            await room.ended(task)
        await eventually(lambda: room.committed() == 31)
        assert await room.end(long) is None
        hold.set()
        await room.ended(long)
        await eventually(lambda: room.committed() == 32)
        assert len(worker.ran) == 31


async def test_a_flood_in_one_lane_does_not_stop_the_reading_of_another():
    """Read-ahead is bounded for each class, and everything is read in the end."""
    async with Room(read_ahead=4 * 10 * 2200) as room:
        dispatcher = await room.dispatcher()
        await eventually(lambda: dispatcher.owns)
        for _ in range(5):
            for _ in range(40):
                await room.submit(room.task(priority_class=PRIORITY_CLASS_BATCH))
            await asyncio.sleep(0.01)
        await eventually(lambda: 10 < len(table(room).queue) < 200)
        urgent = await room.submit(room.task(priority_class=PRIORITY_CLASS_CRITICAL))
        await eventually(lambda: urgent.id in table(room).queue)
        await room.worker(slots=16)
        await eventually(lambda: room.committed(PRIORITY_CLASS_BATCH) == 200)


async def test_a_record_that_is_no_task_is_passed_over():
    """It is reported and blocks nobody."""
    async with Room() as room:
        await room.dispatcher()
        await room.worker()
        room.lanes.records[PRIORITY_CLASS_STANDARD, 0].append(b"\xff\xff no task")
        await room.ended(await room.submit())
        await eventually(lambda: room.committed() == 2)


async def test_work_goes_on_after_redis_and_kafka_were_away():
    """The owner stops acting when its lease ends, and takes the pool again by itself."""
    async with Room() as room:
        dispatcher = await room.dispatcher()
        worker = await room.worker()
        await room.ended(await room.submit())
        before = dispatcher.actor.owner.epoch
        room.leases.away = room.log.away = room.lanes.away = True
        await eventually(lambda: not dispatcher.owns)
        room.leases.away = room.log.away = room.lanes.away = False
        await room.ended(await room.submit())
        assert dispatcher.actor.owner.epoch > before
        assert len(worker.ran) == 2


async def test_a_pool_without_committed_offsets_is_not_owned(caplog):
    """The error says so; once somebody committed where to begin, the pool is owned."""
    async with Room() as room:
        room.lanes.commits.clear()
        dispatcher = await room.dispatcher()
        await eventually(lambda: "cannot be owned" in caplog.text)
        assert not dispatcher.owns


class Lookup:
    """Who owns the pool, from the memory of the room."""

    def __init__(self, room: Room) -> None:
        self.room = room

    async def find(self, pool: str):
        return self.room.leases.owner(pool)


async def test_a_listener_hears_the_pools_signal_and_follows_it_to_a_new_owner():
    """Work, slots and waiting tasks; from the standby after a takeover, under its higher epoch."""
    async with Room() as room, SignalsListener(Lookup(room)) as listener:
        listener.follow([POOL])
        assert listener.age_s(POOL) == float("inf")
        first = await room.dispatcher("d1")
        await eventually(lambda: POOL in listener.signals)
        await room.submit()
        await eventually(lambda: listener.signals[POOL].waiting == 1 and listener.signals[POOL].work_s > 0)
        await first.die()
        second = await room.dispatcher("d2")
        await room.worker(slots=3, behave=answer("x", hold=asyncio.Event()))
        await eventually(lambda: second.owns and listener.signals[POOL].busy_slots == 1)
        assert listener.signals[POOL].slots == 3
        assert listener.age_s(POOL) < 1.0


async def test_a_gateway_is_told_how_its_waiting_tasks_stand_and_only_that():
    """Position and state of tasks whose record names it, or that it watches; nothing about the tasks of others."""
    heard: dict[str, list[tuple[str, int]]] = {}
    async with Room() as room, SignalsListener(Lookup(room), "gateway:1", 7) as listener:
        listener.on_status = lambda s: heard.setdefault(s.task, []).append((s.state, s.position))
        listener.follow([POOL])
        await room.dispatcher()
        await eventually(lambda: POOL in listener.signals)
        mine = room.task("mine")
        mine.route.CopyFrom(Route(address="gateway:1", boot=7, handle=1))
        older = room.task("older")
        older.route.CopyFrom(Route(address="gateway:1", boot=6, handle=1))
        for task in (room.task("first"), mine, older, room.task("watched")):
            await room.submit(task)
        listener.watch(POOL, "watched")
        await eventually(lambda: set(heard) == {"mine", "watched"})
        assert heard == {"mine": [("queued", 2)], "watched": [("queued", 4)]}
        await room.worker(slots=1, behave=answer("x", takes_s=0.3))
        await eventually(lambda: heard["watched"][-1][0] == "running")
        assert heard["mine"][-1] == ("running", 0)


async def test_a_gateways_word_ends_a_cancelled_task_that_waits():
    """The hint makes the owner look at the truth; a hint without a wish changes nothing."""
    async with Room() as room, SignalsListener(Lookup(room)) as listener:
        listener.follow([POOL])
        await room.dispatcher()
        await eventually(lambda: POOL in listener.signals)
        task, other = await room.submit(), await room.submit()
        await eventually(lambda: len(table(room).queue) == 2)
        await room.log.wish_cancel(task.id, 60.0)
        listener.cancel(POOL, task.id)
        listener.cancel(POOL, other.id)
        assert (await room.ended(task)).outcome.kind == OUTCOME_KIND_CANCELLED
        assert other.id in table(room).queue


async def test_a_gateways_word_about_a_running_task_reaches_its_worker():
    """A silent task does not read its wish by itself."""
    async with Room() as room, SignalsListener(Lookup(room)) as listener:
        listener.follow([POOL])
        await room.dispatcher()
        worker = await room.worker(behave=answer("x", hold=asyncio.Event()))
        await eventually(lambda: POOL in listener.signals)
        task = await room.submit()
        await eventually(lambda: worker.running)
        await room.log.wish_cancel(task.id, 60.0)
        listener.cancel(POOL, task.id)
        await eventually(lambda: worker.stopped == [task.id])


async def test_who_does_not_own_the_pool_says_who_does():
    """With the owner's address for workers and listeners; a pool nobody configured is named."""
    async with Room() as room:
        first = await room.dispatcher("d1")
        await eventually(lambda: first.owns)
        second = await room.dispatcher("d2")
        await eventually(lambda: second.actor.elsewhere)
        for pool, reason in ((POOL, f"owned by {first.address}"), ("none", "there is no pool 'none'")):
            hello = WorkerMessage(events=[WorkerEvent(hello=Hello(worker="w", pool=pool))])
            for rpc, said in (("Attach", hello), ("Signals", SignalsRequest(pool=pool))):
                assert reason in await refusal(second.address, rpc, said)
        assert "Hello" in await refusal(first.address, "Attach", WorkerMessage())


async def refusal(address: str, rpc: str, first: Message) -> str:
    """Why the dispatcher does not listen."""
    async with dial(address, method(dispatch_pb2, "Dispatch", rpc), lambda _: None) as line:
        line.send(first.SerializeToString())
        with pytest.raises(RefusedError) as refused:
            await line.listening()
        return str(refused.value)


class LogReader:
    """A client that reads a task's log as it grows."""

    def __init__(self, room: Room, task: Task) -> None:
        self._room, self._task, self._cursor = room, task.id, Cursor()
        self.text, self.restarts, self.ends = "", 0, 0

    def reads(self, text: str) -> Callable[[], Awaitable[bool]]:
        """Read on; is this what the page shows now?"""

        async def look() -> bool:
            for event in self._cursor.take_log(await self._room.log.read(self._task, self._cursor.after)):
                match event:
                    case Text():
                        self.text += event.text
                    case Restarted():
                        self.text, self.restarts = "", self.restarts + 1
                    case End():
                        self.ends += 1
            return self.text == text

        return look


class Page:
    """A client's page."""

    writable = True

    def __init__(self) -> None:
        self.text, self.gen, self.restarts = "", 0, 0
        self.ends: list[Outcome] = []

    def on_text(self, reader: Reader, gen: int, offset: int, text: str) -> None:
        self.text, self.gen = self.text + text, gen

    def on_restarted(self, reader: Reader, gen: int) -> None:
        self.text, self.restarts = "", self.restarts + 1

    def on_end(self, reader: Reader, gen: int, offset: int, outcome: Outcome) -> None:
        self.ends.append(outcome)

    def on_status(self, reader: Reader, status: TaskStatus) -> None:
        """Nobody looks at it."""

    def on_gone(self, reader: Reader, code: str) -> None:
        raise AssertionError(code)


class GatedEngine:
    """Says "shared " at once and then what it is fed; "stop" is its end."""

    def __init__(self) -> None:
        self.requests: list[EngineRequest] = []
        self.stopped: list[str] = []
        self._pieces: asyncio.Queue[str] = asyncio.Queue()
        self.feed("shared ")

    def feed(self, *pieces: str) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)

    async def ready(self) -> bool:
        return True

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        self.requests.append(request)
        try:
            while (piece := await self._pieces.get()) != "stop":
                yield EngineChunk(piece, 1)
            yield EngineChunk("", 0, "stop")
        finally:
            self.stopped.append(request.request_id)


@contextlib.asynccontextmanager
async def real_worker(room: Room, engine: GatedEngine) -> AsyncIterator[Readers]:
    """A dispatcher, a real worker attached to it, and the readers that its frames reach."""
    readers = Readers(room.log, room.control, LabSignals(), address="lab", boot=BOOT)

    class Frames:
        def push(self, address: str, batch: FrameBatch) -> None:
            readers.on_frames(batch.boot, batch.frames)

    dispatcher = await room.dispatcher()
    await eventually(lambda: dispatcher.owns)
    found = SimpleNamespace(owner=room.leases.owner(POOL))
    worker = WorkerRoom(found, log=room.log, usage=room.usage, frames=Frames(), engine=engine, heartbeat_s=0.1)
    watchdog = asyncio.create_task(readers.run_watchdog())
    async with worker:
        yield readers
    watchdog.cancel()


@contextlib.asynccontextmanager
async def heard_twins(
    room: Room,
) -> AsyncIterator[tuple[GatedEngine, Callable[[Task], Awaitable[None]], Task, list[Page], list[Task]]]:
    """An engine, how a gateway cancels a task, and the twins of a running leader."""
    engine = GatedEngine()
    async with SignalsListener(Lookup(room)) as listener, real_worker(room, engine) as readers:

        async def cancel(task: Task) -> None:
            await room.log.wish_cancel(task.id, 60.0)
            listener.cancel(POOL, task.id)

        listener.follow([POOL])
        twins = await twins_of_a_running_leader(room, readers)
        await eventually(lambda: POOL in listener.signals)
        yield engine, cancel, *twins


async def twins_of_a_running_leader(room: Room, readers: Readers) -> tuple[Task, list[Page], list[Task]]:
    """A leader whose first text is on the pages of two followers."""
    leader = await room.submit(speaking(room.task()))
    twins = [await room.submit(speaking(room.task(joined=leader.id))) for _ in range(2)]
    pages = [Page() for _ in twins]
    for twin, page in zip(twins, pages, strict=True):
        readers.attach(readers.open(twin.id, page))
    await eventually(lambda: all(page.text == "shared " for page in pages))
    await eventually(lambda: table(room).followers.of(leader.id) == tuple(twin.id for twin in twins))
    return leader, pages, twins


def speaking(task: Task) -> Task:
    """With something for an engine to do."""
    task.messages.add(role="user", content="hello")
    task.sampling.max_tokens = 20
    return task


def table(room: Room) -> TaskTable:
    """The tasks as the present owner sees them; an empty table between two owners."""
    return next((d.actor.owner.scheduler.table for d in room.dispatchers if d.owns), TaskTable(0, 0.0, 1, 0.0))
