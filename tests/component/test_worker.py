"""The worker in one process: memory adapters, the simulated engine, a dispatcher on the loopback."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from millrace.dispatch.v1 import dispatch_pb2 as pb
from millrace.task.v1.task_pb2 import OutcomeKind, Route
from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.adapters.memory_usage_log import MemoryUsageLog
from services.tasklog.core.entries import Begin, Continue, Delta, Fenced, Header
from services.tasklog.core.reading import GAP, Cursor
from services.worker.adapters.framed_frame_publisher import FramedFramePublisher
from services.worker.adapters.memory_frame_publisher import MemoryFramePublisher
from services.worker.adapters.simulator_engine import SimulatorPrompts
from services.worker.core.attempt_plan import Patience
from services.worker.core.simulated_text import simulated_text
from services.worker.ports import EngineChunk, EngineFault, EngineRequest
from tests.support.fake_dispatcher import FakeDispatcher, task
from tests.support.fake_frames import FakeFrames
from tests.support.waiting import eventually
from tests.support.worker_room import WorkerRoom, deltas, read

ROUTE = Route(address="gateway:8082", boot=7, handle=3)
COMPLETED = OutcomeKind.OUTCOME_KIND_COMPLETED
CANCELLED = OutcomeKind.OUTCOME_KIND_CANCELLED
EXPIRED = OutcomeKind.OUTCOME_KIND_EXPIRED
FAILED = OutcomeKind.OUTCOME_KIND_FAILED


@pytest.fixture
async def dispatcher() -> AsyncIterator[FakeDispatcher]:
    async with FakeDispatcher() as fake:
        yield fake


def answer(prompt: str, tokens: int = 20) -> str:
    """What the simulator says to one user message."""
    return simulated_text(f"user: {prompt}\n", tokens)


def shown(frames: MemoryFramePublisher, route: Route = ROUTE) -> tuple[str, bool]:
    """What a reader at `route` was shown by frames alone: the text, and whether it saw the end."""
    cursor, text = Cursor(), ""
    for address, batch in frames.sent:
        for f in batch.frames if (address, batch.boot) == (route.address, route.boot) else ():
            if f.handle == route.handle:
                outcome = f.outcome if f.HasField("outcome") else None
                events = cursor.take_frame(f.attempt, f.gen, f.start, f.end, f.text, outcome)
                assert events is not GAP
                text += "".join(getattr(event, "text", "") for event in events)
    return text, cursor.ended


class ScriptedEngine:
    """An engine that says what a test feeds it, per task."""

    def __init__(self) -> None:
        self.is_ready = True
        self.requests: list[EngineRequest] = []
        self.stopped: list[str] = []
        self._feeds: dict[str, asyncio.Queue[EngineChunk | EngineFault]] = {}

    def feed(self, name: str, *pieces: str | EngineChunk | EngineFault) -> None:
        queue = self._feeds.setdefault(name, asyncio.Queue())
        for piece in pieces:
            queue.put_nowait(EngineChunk(piece, 1) if isinstance(piece, str) else piece)

    async def ready(self) -> bool:
        return self.is_ready

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        self.requests.append(request)
        name = request.request_id.rpartition("-")[0]
        queue = self._feeds.setdefault(name, asyncio.Queue())
        try:
            while True:
                piece = await queue.get()
                if isinstance(piece, EngineFault):
                    raise piece
                yield piece
                if piece.finish_reason:
                    return
        finally:
            self.stopped.append(name)


END = EngineChunk("", 0, "stop")


# -- the path of a task -------------------------------------------------------------------------------------------------


async def test_a_task_is_logged_then_told_then_finished(dispatcher: FakeDispatcher) -> None:
    """The log, the frames and the usage record say the same, and Finished names the run under which the end was written."""
    async with WorkerRoom(dispatcher) as room:
        attempt = dispatcher.assign(task("t1", "hello", route=ROUTE))
        finished = await dispatcher.hear("finished", "t1")
        text, end = await read(room.log, "t1")
        assert text == answer("hello")
        assert end is not None
        assert end.outcome.kind == COMPLETED
        assert end.outcome.finish_reason == "length"
        assert end.outcome.usage.completion_tokens == 20
        assert end.outcome.usage.prompt_tokens == 2
        assert end.outcome.timings.attempts == 1
        assert 0 <= end.outcome.timings.ttft_s <= end.outcome.timings.total_s
        assert shown(room.frames) == (text, True)
        assert (finished.attempt, finished.run_id, finished.outcome) == (attempt, room.log.run_id, end.outcome)
        assert [(r.task, r.gen) for r in room.usage.records] == [("t1", attempt)]
        assert (await dispatcher.hear("started", "t1")).prompt_tokens == 2


async def test_a_first_delta_does_not_wait_for_the_tick(dispatcher: FakeDispatcher) -> None:
    """With a tick of a second the first text is logged at once, and what follows waits."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine, tick_s=1.0) as room:
        room.worker._flusher._tick._shortest_s = room.worker._flusher._tick.length_s = 1.0
        dispatcher.assign(task("t1"))
        await dispatcher.hear("started", "t1")
        engine.feed("t1", "first")
        before = time.monotonic()
        await eventually(lambda: room.logged("t1"))
        assert time.monotonic() - before < 0.9
        engine.feed("t1", " second", " third", END)
        await dispatcher.hear("finished", "t1")
        assert [delta.text for delta in await deltas(room.log, "t1")] == ["first", " second third"]


async def test_many_tasks_share_one_pipeline(dispatcher: FakeDispatcher) -> None:
    """Tasks that run at once are logged in common flushes: far fewer of them than deltas."""

    class Counting(MemoryTokenLog):
        pipelines = 0

        async def append(self, run_id, entries):
            self.pipelines += 1
            return await super().append(run_id, entries)

    log = Counting()
    async with WorkerRoom(dispatcher, log=log, slots=32, tick_s=0.02):
        for n in range(32):
            dispatcher.assign(task(f"t{n}", f"prompt {n}"))
        await asyncio.gather(*(dispatcher.hear("finished", f"t{n}") for n in range(32)))
        entries = sum([len(await deltas(log, f"t{n}")) for n in range(32)])
        assert log.pipelines < entries / 4


async def test_an_engine_that_decodes_a_batch_is_logged_in_slices(dispatcher: FakeDispatcher) -> None:
    """Text of 150 tasks in one instant: no pipeline is longer than a slice, and a first text goes before what waits."""

    class Sizes(MemoryTokenLog):
        def __init__(self) -> None:
            super().__init__()
            self.slices: list[list[str]] = []

        async def append(self, run_id, entries):
            self.slices.append([name for name, _ in entries])
            return await super().append(run_id, entries)

    engine, log = ScriptedEngine(), Sizes()
    names = [f"t{n}" for n in range(150)]
    async with WorkerRoom(dispatcher, engine=engine, log=log, slots=151, tick_s=0.05) as room:
        for name in (*names, "new"):
            dispatcher.assign(task(name))
            await dispatcher.hear("started", name)
        for name in names:
            engine.feed(name, "first")
        await eventually(lambda: all(room.logged(name) == 5 for name in names))
        log.slices.clear()
        for name in names:
            engine.feed(name, " more")
        engine.feed("new", "first")
        await eventually(lambda: all(room.logged(name) == 10 for name in names))
        assert max(len(slice_) for slice_ in log.slices) <= 64
        assert sorted(name for slice_ in log.slices for name in slice_) == sorted((*names, "new"))
        assert log.slices[0][0] == "new"


async def test_credits_are_the_free_slots(dispatcher: FakeDispatcher) -> None:
    """Credits cover the slots, an assignment takes one, a task that the engine is done with gives it back."""
    async with WorkerRoom(dispatcher, slots=3):
        await dispatcher.hear("credit")
        assert dispatcher.credits == 3
        dispatcher.assign(task("t1", "[[sim tokens=2]]"))
        dispatcher.assign(task("t2", "[[sim rate=1]]"))
        await dispatcher.hear("finished", "t1")
        await eventually(lambda: dispatcher.credits == 4)
        await asyncio.sleep(0.15)
        assert dispatcher.credits == 4


async def test_an_engine_that_is_not_ready_gets_no_work(dispatcher: FakeDispatcher) -> None:
    """No credit is given until the engine says that it would serve."""
    engine = ScriptedEngine()
    engine.is_ready = False
    room = WorkerRoom(dispatcher, engine=engine)
    tasks = [asyncio.create_task(work) for work in room._work]
    await eventually(lambda: room.worker.attached)
    await asyncio.sleep(0.15)
    assert not dispatcher.heard("credit")
    room.worker._health.ready = True
    assert (await dispatcher.hear("credit")).slots == 4
    for work in tasks:
        work.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_repeated_assignment_changes_nothing(dispatcher: FakeDispatcher) -> None:
    """An Assign that comes again while its attempt runs does not begin a second one."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine):
        dispatcher.assign(task("t1"))
        await dispatcher.hear("started", "t1")
        dispatcher.assign(task("t1"))
        engine.feed("t1", "once", END)
        await dispatcher.hear("finished", "t1")
        assert len(engine.requests) == 1


async def test_a_worker_starts_although_one_gateway_is_dead_it_connects_in_the_background(
    dispatcher: FakeDispatcher,
) -> None:
    """The task runs to its end, and a reader at a living gateway sees every byte."""
    dead, gateway = FakeFrames(), FakeFrames()
    await dead.come()
    await dead.leave()
    await gateway.come()
    async with FramedFramePublisher() as frames, WorkerRoom(dispatcher, frames=frames) as room:
        await room.log.attach("t1", Route(address=gateway.address, boot=7, handle=3), 60)
        dispatcher.assign(task("t1", route=Route(address=dead.address, boot=1, handle=1)))
        await dispatcher.hear("finished", "t1")
        await eventually(lambda: gateway.batches and gateway.batches[-1].frames[-1].HasField("outcome"))
        assert "".join(frame.text for batch in gateway.batches for frame in batch.frames) == answer("hello")
    await gateway.leave()


# -- attempts -----------------------------------------------------------------------------------------------------------


async def test_an_attempt_continues_where_another_stopped(dispatcher: FakeDispatcher) -> None:
    """A worker that takes over goes on from the logged text, under its gen, and the bytes are those of one answer."""
    log, usage = MemoryTokenLog(), MemoryUsageLog()
    what = task("t1", "a long story [[sim rate=20]]", max_tokens=30)
    async with WorkerRoom(dispatcher, name="w1", log=log, usage=usage) as first:
        gen = dispatcher.assign(what)
        await eventually(lambda: first.logged("t1") > 10)
        await first.die()
    async with WorkerRoom(dispatcher, name="w2", log=log, usage=usage):
        dispatcher.assign(what, 2, attempts=2)
        finished = await dispatcher.hear("finished", "t1")
        text, end = await read(log, "t1")
        assert text == answer("a long story [[sim rate=20]]", 30)
        assert end is not None
        assert end.gen == gen
        assert finished.outcome.timings.attempts == 2
        assert finished.outcome.usage.completion_tokens == 30


async def test_an_engine_fault_is_continued_elsewhere(dispatcher: FakeDispatcher) -> None:
    """The attempt reports its failure once its text is logged; the next one completes the answer."""
    prompt = "[[sim fault=continue@5]]"
    async with WorkerRoom(dispatcher) as room:
        dispatcher.assign(task("t1", prompt))
        failed = await dispatcher.hear("finished", "t1")
        assert failed.failure
        assert not failed.HasField("outcome")
        assert (await read(room.log, "t1")) == (answer(prompt, 5), None)
        assert not room.usage.records
        dispatcher.assign(task("t1", prompt), 2, previous=dispatcher.attempt(1), attempts=2)
        await dispatcher.hear("finished", "t1", dispatcher.attempt(2))
        assert (await read(room.log, "t1"))[0] == answer(prompt)


async def test_a_fatal_fault_ends_the_task(dispatcher: FakeDispatcher) -> None:
    """What no engine would do better ends `failed` with the fault's code, and with the text so far."""
    async with WorkerRoom(dispatcher) as room:
        dispatcher.assign(task("t1", "[[sim fault=fatal@3]]"))
        outcome = (await dispatcher.hear("finished", "t1")).outcome
        assert (outcome.kind, outcome.error_code, outcome.finish_reason) == (FAILED, "engine_failed", "error")
        text, end = await read(room.log, "t1")
        assert end is not None
        assert text == answer("[[sim fault=fatal@3]]", 3)


async def test_a_prompt_that_does_not_fit_is_refused_without_the_engine(dispatcher: FakeDispatcher) -> None:
    """The task ends `failed` with invalid_request, and the message says how long it is and what fits."""

    class Small(SimulatorPrompts):
        context = 3

    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, prompts=Small(), engine=engine):
        dispatcher.assign(task("t1", "one two three four"))
        outcome = (await dispatcher.hear("finished", "t1")).outcome
        assert (outcome.kind, outcome.error_code) == (FAILED, "invalid_request")
        assert outcome.error_message == "the prompt has 5 tokens, the model holds 3"
        assert not engine.requests


async def test_a_stalled_engine_fails_the_attempt(dispatcher: FakeDispatcher) -> None:
    """Silence between tokens is noticed without the engine's help; what it gave before is logged."""
    prompt = "[[sim fault=hang@4]]"
    async with WorkerRoom(dispatcher, patience=Patience(first_token_s=30, stall_s=0.2)) as room:
        dispatcher.assign(task("t1", prompt))
        failed = await dispatcher.hear("finished", "t1")
        assert failed.failure.startswith("the engine stalled: no further token for ")
        assert (await read(room.log, "t1"))[0] == answer(prompt, 4)


async def test_an_engine_that_never_begins_fails_the_attempt(dispatcher: FakeDispatcher) -> None:
    """Silence before the first token has its own, longer patience."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine, patience=Patience(first_token_s=0.2, stall_s=30)):
        dispatcher.assign(task("t1"))
        failed = await dispatcher.hear("finished", "t1")
        assert failed.failure.startswith("the engine stalled: no first token")
        assert engine.stopped == ["t1"]


async def test_a_poisoned_engine_pauses_and_poisons_nobody_else(dispatcher: FakeDispatcher) -> None:
    """After three faults in a row no credit is given for a while, so the queue's attempts are not burnt."""
    async with WorkerRoom(dispatcher, slots=1):
        for n in range(3):
            await eventually(lambda n=n: dispatcher.credits == n + 1)
            dispatcher.assign(task(f"t{n}", "[[sim fault=retry@0]]"))
            assert (await dispatcher.hear("finished", f"t{n}")).failure
        await asyncio.sleep(0.15)
        assert dispatcher.credits == 3
        await eventually(lambda: dispatcher.credits == 4)
        dispatcher.assign(task("t9"))
        assert (await dispatcher.hear("finished", "t9")).outcome.kind == COMPLETED


async def test_an_engine_that_is_away_costs_no_task_an_attempt(dispatcher: FakeDispatcher) -> None:
    """The task is handed back, not failed, and no work is asked for until the engine says that it is ready."""
    async with WorkerRoom(dispatcher, slots=1):
        await eventually(lambda: dispatcher.credits == 1)
        dispatcher.assign(task("t1", "[[sim fault=away@0]]"))
        finished = await dispatcher.hear("finished", "t1")
        assert finished.handed_back
        assert not finished.failure
        assert dispatcher.credits == 1
        await eventually(lambda: dispatcher.credits == 2)


async def test_a_text_that_cannot_be_logged_fails_alone(dispatcher: FakeDispatcher) -> None:
    """Nonsense from the engine costs its own task an attempt; the others in the same flush are logged."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine) as room:
        dispatcher.assign(task("bad"))
        dispatcher.assign(task("good"))
        await dispatcher.hear("started", "good")
        engine.feed("bad", "half a pair: \ud800", END)
        engine.feed("good", "well said", END)
        assert (await dispatcher.hear("finished", "good")).outcome.kind == COMPLETED
        assert (await dispatcher.hear("finished", "bad")).failure == "its text could not be logged"
        assert (await read(room.log, "good"))[0] == "well said"


async def test_an_engine_that_stops_without_an_end_fails_the_attempt(dispatcher: FakeDispatcher) -> None:
    """A stream that just ends, and an adapter with a bug, are faults like any other."""

    class Broken(ScriptedEngine):
        async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
            yield EngineChunk("half ", 1)
            if request.request_id.startswith("bug"):
                raise KeyError("x")

    async with WorkerRoom(dispatcher, engine=Broken()):
        dispatcher.assign(task("ends"))
        dispatcher.assign(task("bug"))
        assert (await dispatcher.hear("finished", "ends")).failure == "the engine stopped without an end"
        assert (await dispatcher.hear("finished", "bug")).failure == "KeyError in the worker"


# -- cancel and deadline ------------------------------------------------------------------------------------------------


async def test_a_cancelled_task_ends_with_the_text_so_far(dispatcher: FakeDispatcher) -> None:
    """A cancel by the dispatcher stops the engine and ends the task once."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine) as room:
        attempt = dispatcher.assign(task("t1", route=ROUTE))
        engine.feed("t1", "so far ")
        await eventually(lambda: room.frames.sent)
        dispatcher.say(cancel=pb.Cancel(task="t1", attempt=attempt))
        outcome = (await dispatcher.hear("finished", "t1")).outcome
        text, end = await read(room.log, "t1")
        assert (outcome.kind, outcome.error_code) == (CANCELLED, "cancelled")
        assert end is not None
        assert end.outcome == outcome
        assert text == "so far "
        assert outcome.usage.completion_tokens == 1
        assert engine.stopped == ["t1"]
        assert shown(room.frames) == (text, True)


async def test_a_wish_to_cancel_is_the_owners_to_grant(dispatcher: FakeDispatcher) -> None:
    """Others may follow the task: a wish read beside the log is told, to the next owner too, and text goes on until it answers."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine) as room:
        attempt = dispatcher.assign(task("t1"))
        engine.feed("t1", "so far ")
        await eventually(lambda: room.logged("t1"))
        assert not any(progress.cancel_wished for progress in dispatcher.heard("progress"))
        await room.log.wish_cancel("t1", 60)
        engine.feed("t1", "and ")
        await eventually(lambda: any(p.cancel_wished for p in dispatcher.heard("progress", "t1", attempt)))
        dispatcher.cut()
        await dispatcher.hear("hello", count=2)
        told = len(dispatcher.events)
        await eventually(lambda: any(e.progress.cancel_wished for e in dispatcher.events[told:]))
        engine.feed("t1", "on")
        await eventually(lambda: room.logged("t1") == len("so far and on"))
        dispatcher.say(cancel=pb.Cancel(task="t1", attempt=attempt))
        assert (await dispatcher.hear("finished", "t1")).outcome.kind == CANCELLED
        assert (await read(room.log, "t1"))[0] == "so far and on"


async def test_a_wish_to_cancel_that_is_not_granted_changes_nothing(dispatcher: FakeDispatcher) -> None:
    """The task ends with its whole answer, once."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine) as room:
        dispatcher.assign(task("t1", route=ROUTE))
        await room.log.wish_cancel("t1", 60)
        engine.feed("t1", "all ")
        await eventually(lambda: any(p.cancel_wished for p in dispatcher.heard("progress", "t1")))
        engine.feed("t1", "of it", END)
        assert (await dispatcher.hear("finished", "t1")).outcome.kind == COMPLETED
        assert shown(room.frames) == ("all of it", True)
        assert [record.outcome.kind for record in room.usage.records] == [COMPLETED]


async def test_a_cancel_for_an_earlier_attempt_is_ignored(dispatcher: FakeDispatcher) -> None:
    """It was meant for somebody else."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine):
        dispatcher.assign(task("t1"), 2)
        await dispatcher.hear("started", "t1")
        dispatcher.say(cancel=pb.Cancel(task="t1", attempt=dispatcher.attempt(1)))
        engine.feed("t1", "all of it", END)
        assert (await dispatcher.hear("finished", "t1")).outcome.kind == COMPLETED


async def test_a_cancel_that_comes_before_the_start_keeps_the_engine_out(dispatcher: FakeDispatcher) -> None:
    """A task cancelled while Redis is away ends as soon as its log can be written, without a token."""
    engine, log = ScriptedEngine(), MemoryTokenLog()
    async with WorkerRoom(dispatcher, engine=engine, log=log) as room:
        log.away = True
        attempt = dispatcher.assign(task("t1"))
        dispatcher.say(cancel=pb.Cancel(task="t1", attempt=attempt))
        await eventually(lambda: room.worker._runs and room.worker._runs["t1"].cancelled)
        log.away = False
        assert (await dispatcher.hear("finished", "t1")).outcome.kind == CANCELLED
        assert not engine.requests


async def test_a_task_that_expires_while_it_runs_ends_with_the_text_so_far(dispatcher: FakeDispatcher) -> None:
    """The deadline is looked at while the engine is silent too."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine) as room:
        dispatcher.assign(task("t1", deadline_s=0.3))
        engine.feed("t1", "as far as it got")
        outcome = (await dispatcher.hear("finished", "t1")).outcome
        assert (outcome.kind, outcome.error_code) == (EXPIRED, "expired")
        assert (await read(room.log, "t1"))[0] == "as far as it got"
        assert engine.stopped == ["t1"]


async def test_expired_work_never_reaches_the_engine(dispatcher: FakeDispatcher) -> None:
    """A task whose deadline passed on its way ends here, typed."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine):
        dispatcher.assign(task("t1", deadline_s=-1))
        assert (await dispatcher.hear("finished", "t1")).outcome.kind == EXPIRED
        assert not engine.requests


# -- fencing ------------------------------------------------------------------------------------------------------------


async def test_a_zombie_workers_appends_are_refused_and_never_shown(dispatcher: FakeDispatcher) -> None:
    """Once another attempt's header is in the log, nothing of the old worker reaches the log or a reader."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine) as room:
        gen = dispatcher.assign(task("t1", route=ROUTE))
        engine.feed("t1", "mine ")
        await eventually(lambda: room.frames.sent)
        header = Header(dispatcher.attempt(2), "w2", "nonce", room.log.run_id)
        below = await room.log.begin("t1", header, 60)
        engine.feed("t1", "too late ", END)
        await dispatcher.hear("fenced", "t1", gen)
        assert shown(room.frames) == ("mine ", False)
        assert below == Continue(gen, "mine ")
        assert (await read(room.log, "t1"))[0] == "mine "
        assert not room.worker._held.all()
        assert not room.usage.records
        assert engine.stopped == ["t1"]


async def test_a_fenced_begin_shows_nothing(dispatcher: FakeDispatcher) -> None:
    """An attempt whose header is refused never asks the engine."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine) as room:
        await room.log.begin("t1", Header(dispatcher.attempt(9), "w2", "nonce", room.log.run_id), 60)
        dispatcher.assign(task("t1"))
        await dispatcher.hear("fenced", "t1")
        assert not engine.requests


async def test_a_takeover_fences_before_it_reads_the_end_offset(dispatcher: FakeDispatcher) -> None:
    """What the old attempt logs just before the fence is continued, what comes just after is refused: no byte twice."""

    class Late(MemoryTokenLog):
        """An old attempt's delta arrives at the moment of the new header, before or after it."""

        result = None

        async def begin(self, task: str, header: Header, keep_s: float) -> Begin | Fenced:
            if header.attempt == dispatcher.attempt(2):
                await self.append(
                    self.run_id, [(task, Delta(dispatcher.attempt(1), dispatcher.attempt(1), 4, 8, "two "))]
                )
            begun = await super().begin(task, header, keep_s)
            if header.attempt == dispatcher.attempt(2):
                late = Delta(dispatcher.attempt(1), dispatcher.attempt(1), 8, 14, "three ")
                (self.result,) = await self.append(self.run_id, [(task, late)])
            return begun

    log, engine = Late(), ScriptedEngine()
    await log.begin("t1", Header(dispatcher.attempt(1), "w0", "n", log.run_id), 60)
    await log.append(log.run_id, [("t1", Delta(dispatcher.attempt(1), dispatcher.attempt(1), 0, 4, "one "))])
    async with WorkerRoom(dispatcher, log=log, engine=engine):
        dispatcher.assign(task("t1"), 2, attempts=2)
        engine.feed("t1", "three", END)
        await dispatcher.hear("finished", "t1")
        assert engine.requests[0].forced_prefix == "one two "
        assert isinstance(log.result, Fenced)
        assert (await read(log, "t1"))[0] == "one two three"


async def test_a_worker_that_is_told_of_a_later_attempt_drops_its_own(dispatcher: FakeDispatcher) -> None:
    """Between its attempt and the new one somebody else may have written: it starts from the log, not from memory."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine) as room:
        first = dispatcher.assign(task("t1"))
        engine.feed("t1", "mine ")
        await eventually(lambda: room.logged("t1"))
        other = dispatcher.attempt(2)
        await room.log.begin("t1", Header(other, "w2", "nonce", room.log.run_id), 60)
        await room.log.append(room.log.run_id, [("t1", Delta(other, first, 5, 11, "yours "))])
        dispatcher.assign(task("t1"), 3, previous=other, attempts=3)
        await dispatcher.hear("started", "t1", dispatcher.attempt(3))
        engine.feed("t1", "again", END)
        await dispatcher.hear("finished", "t1")
        assert engine.requests[-1].forced_prefix == "mine yours "
        assert (await read(room.log, "t1"))[0] == "mine yours again"


# -- Redis ---------------------------------------------------------------------------------------------------------------


async def test_while_redis_is_away_text_gathers_and_is_logged_afterwards(dispatcher: FakeDispatcher) -> None:
    """A Redis that comes back as the same run gets everything that was made meanwhile, and readers miss nothing."""
    engine, log = ScriptedEngine(), MemoryTokenLog()
    async with WorkerRoom(dispatcher, engine=engine, log=log) as room:
        dispatcher.assign(task("t1", route=ROUTE))
        engine.feed("t1", "before, ")
        await eventually(lambda: room.frames.sent)
        log.away = True
        engine.feed("t1", "meanwhile, ", "afterwards", END)
        await eventually(lambda: room.worker._runs["t1"].answer.outcome)
        assert shown(room.frames) == ("before, ", False)
        log.away = False
        await dispatcher.hear("finished", "t1")
        assert (await read(log, "t1"))[0] == "before, meanwhile, afterwards"
        assert shown(room.frames) == ("before, meanwhile, afterwards", True)
        assert not dispatcher.heard("need")


async def test_a_redis_failover_that_lost_the_tail_leaves_no_hole(dispatcher: FakeDispatcher) -> None:
    """A Redis failover that lost the tail leaves no hole: the worker logs the text again, readers go on where they were."""
    engine, log = ScriptedEngine(), MemoryTokenLog()
    async with WorkerRoom(dispatcher, engine=engine, log=log) as room:
        gen = dispatcher.assign(task("t1", route=ROUTE))
        for piece in ("one ", "two ", "three "):
            engine.feed("t1", piece)
            await eventually(lambda piece=piece: shown(room.frames)[0].endswith(piece))
        log.forget(entries=2)
        engine.feed("t1", "four ")
        need = await dispatcher.hear("need", "t1", gen)
        assert need.run_id == log.run_id
        again = dispatcher.assign(task("t1", route=ROUTE), 2, previous=gen, attempts=2)
        await eventually(lambda: room.worker._runs["t1"].open)
        engine.feed("t1", "five", END)
        finished = await dispatcher.hear("finished", "t1")
        assert (finished.attempt, finished.run_id) == (again, log.run_id)
        text, end = await read(log, "t1")
        assert text == "one two three four five"
        assert end is not None
        assert end.gen == gen
        assert shown(room.frames) == (text, True)
        assert len(engine.requests) == 1


async def test_a_log_that_vanished_is_written_again(dispatcher: FakeDispatcher) -> None:
    """A nil reply means the log is lost: it is never recreated blindly, but under the next attempt."""
    engine, log = ScriptedEngine(), MemoryTokenLog()
    async with WorkerRoom(dispatcher, engine=engine, log=log) as room:
        gen = dispatcher.assign(task("t1"))
        engine.feed("t1", "one ")
        await eventually(lambda: room.logged("t1"))
        log._logs.clear()
        engine.feed("t1", "two ")
        await dispatcher.hear("need", "t1", gen)
        assert not await log.read("t1")
        dispatcher.assign(task("t1"), 2, previous=gen, attempts=2)
        engine.feed("t1", "three", END)
        await dispatcher.hear("finished", "t1")
        assert (await read(log, "t1"))[0] == "one two three"


async def test_an_end_that_redis_forgot_is_logged_again(dispatcher: FakeDispatcher) -> None:
    """Within the commit horizon a finished text is still held: text and end are written again, usage again with the same gen."""
    log = MemoryTokenLog()
    async with WorkerRoom(dispatcher, log=log) as room:
        gen = dispatcher.assign(task("t1"))
        await dispatcher.hear("finished", "t1")
        await eventually(lambda: room.worker._reports.all_heard)
        log.forget(entries=8)
        assert (await read(log, "t1"))[1] is None
        await dispatcher.hear("need", "t1", gen)
        again = dispatcher.assign(task("t1"), 2, previous=gen, attempts=2)
        finished = await dispatcher.hear("finished", "t1", again)
        text, end = await read(log, "t1")
        assert text == answer("hello")
        assert end is not None
        assert (end.attempt, end.gen) == (again, gen)
        assert finished.outcome == end.outcome
        assert finished.run_id == log.run_id
        assert {(record.task, record.gen) for record in room.usage.records} == {("t1", gen)}


async def test_a_finished_text_is_let_go_after_the_horizon() -> None:
    """Nothing is held for tasks whose end is durable."""
    async with FakeDispatcher(horizon_s=-0.9) as dispatcher, WorkerRoom(dispatcher, heartbeat_s=0.05) as room:
        dispatcher.assign(task("t1"))
        await dispatcher.hear("finished", "t1")
        await eventually(lambda: not room.worker._held.all())


async def test_a_need_that_is_not_granted_is_given_up(dispatcher: FakeDispatcher) -> None:
    """A dispatcher that grants nothing has given the task to another: the worker stops and drops its text."""
    engine, log = ScriptedEngine(), MemoryTokenLog()
    async with WorkerRoom(dispatcher, engine=engine, log=log, heartbeat_s=0.02) as room:
        dispatcher.assign(task("t1"))
        engine.feed("t1", "one ")
        await eventually(lambda: room.logged("t1"))
        log.restart()
        await dispatcher.hear("fenced", "t1")
        assert len(dispatcher.heard("need", "t1")) >= 5
        assert not room.worker._held.all()
        assert engine.stopped == ["t1"]


async def test_a_run_that_changes_before_the_text_begins_asks_for_the_next_attempt(dispatcher: FakeDispatcher) -> None:
    """A header that may be forgotten fences nobody: the attempt is not used."""
    engine, log = ScriptedEngine(), MemoryTokenLog()
    async with WorkerRoom(dispatcher, engine=engine, log=log) as room:
        log.away = True
        attempt = dispatcher.assign(task("t1"))
        await eventually(lambda: room.worker._runs)
        log.restart()
        log.away = False
        await dispatcher.hear("need", "t1", attempt)
        dispatcher.assign(task("t1"), 2, previous=attempt, attempts=2)
        engine.feed("t1", "fresh", END)
        await dispatcher.hear("finished", "t1")
        assert await read(log, "t1")
        assert len(engine.requests) == 1


async def test_an_attempt_that_redis_outlived_does_not_begin(dispatcher: FakeDispatcher) -> None:
    """It was given in an earlier run: the present one may have forgotten a higher attempt, which would not fence it any more."""
    log = MemoryTokenLog()
    given = log.run_id
    async with WorkerRoom(dispatcher, log=log):
        await log.begin("t1", Header(dispatcher.attempt(2), "other", "n", given), 60)
        await log.append(given, [("t1", Delta(dispatcher.attempt(2), dispatcher.attempt(2), 0, 5, "other"))])
        log.forget(entries=2)
        attempt = dispatcher.assign(task("t1"), 1, run_id=given)
        await dispatcher.hear("need", "t1", attempt)
        assert await log.read("t1") == []
        again = dispatcher.assign(task("t1"), 3, previous=attempt, attempts=2, run_id=log.run_id)
        assert (await dispatcher.hear("finished", "t1", again)).run_id == log.run_id
        assert (await read(log, "t1"))[0] == answer("hello")


# -- the end ------------------------------------------------------------------------------------------------------------


async def test_a_worker_that_dies_before_the_end_of_the_end_routine_leaves_usage_complete_once(
    dispatcher: FakeDispatcher,
) -> None:
    """A worker that dies between the terminal entry and the end of the end routine leaves usage and conversation complete, once.

    Usage is what there is to leave so far: the end routine appends to no conversation yet.
    """
    log, usage = MemoryTokenLog(), MemoryUsageLog()
    usage.away = True
    async with WorkerRoom(dispatcher, name="w1", log=log, usage=usage) as first:
        gen = dispatcher.assign(task("t1"))

        async def ended():
            return (await read(log, "t1"))[1]

        await eventually(ended)
        await first.die()
    assert not dispatcher.heard("finished")
    assert not usage.records
    usage.away = False
    async with WorkerRoom(dispatcher, name="w2", log=log, usage=usage):
        again = dispatcher.assign(task("t1"), 2, attempts=2)
        finished = await dispatcher.hear("finished", "t1", again)
        end = (await read(log, "t1"))[1]
        assert end is not None
        assert end.attempt == gen
        assert finished.outcome == end.outcome
        assert [(record.task, record.gen) for record in usage.records] == [("t1", gen)]
        assert usage.records[0].outcome == end.outcome


async def test_while_kafka_is_away_the_end_waits_and_work_goes_on(dispatcher: FakeDispatcher) -> None:
    """Finished is not sent before the usage record is committed; slots are free meanwhile, but not without bound."""
    usage = MemoryUsageLog()
    usage.away = True
    async with WorkerRoom(dispatcher, usage=usage, slots=2) as room:
        for n in range(4):
            await eventually(lambda n=n: dispatcher.credits > n)
            dispatcher.assign(task(f"t{n}", "[[sim tokens=1]]"))
        await eventually(lambda: len(room.worker._runs) == 4 and not room.worker._in_engine)
        await asyncio.sleep(0.15)
        assert dispatcher.credits == 4
        assert not dispatcher.heard("finished")
        usage.away = False
        await asyncio.gather(*(dispatcher.hear("finished", f"t{n}") for n in range(4)))
        assert len(usage.newest()) == 4


async def test_an_end_is_told_again_until_it_is_acknowledged(dispatcher: FakeDispatcher) -> None:
    """A Finished that nobody acknowledged is in the next Hello, and its text is held."""
    dispatcher.acks = False
    async with WorkerRoom(dispatcher) as room:
        attempt = dispatcher.assign(task("t1"))
        await dispatcher.hear("finished", "t1")
        room.attach.reattach()
        hello = await dispatcher.hear("hello", count=2)
        assert [(f.task, f.attempt) for f in hello.finished] == [("t1", attempt)]
        assert room.worker._held.all()
        dispatcher.say(finished_ack=pb.FinishedAck(task="t1", attempt=attempt))
        await eventually(lambda: room.worker._reports.all_heard)


# -- owners -------------------------------------------------------------------------------------------------------------


async def test_a_new_owner_adopts_what_runs(dispatcher: FakeDispatcher) -> None:
    """A worker that lost its dispatcher goes on, and tells the next owner what it runs and which epoch it obeyed."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine) as room:
        attempt = dispatcher.assign(task("t1"))
        engine.feed("t1", "one ")
        await eventually(lambda: room.logged("t1"))
        await dispatcher.stop()
        await eventually(lambda: not room.worker.attached)
        engine.feed("t1", "two ")
        async with FakeDispatcher(epoch=2) as heir:
            room.owner = heir.owner
            hello = await heir.hear("hello")
            assert hello.highest_epoch == 1
            assert [(r.task, r.attempt) for r in hello.running] == [("t1", attempt)]
            engine.feed("t1", "three", END)
            assert (await heir.hear("finished", "t1", attempt)).outcome.kind == COMPLETED
            assert (await read(room.log, "t1"))[0] == "one two three"


@pytest.mark.parametrize("politely", [True, False])
async def test_a_worker_comes_back_however_its_stream_ends(dispatcher: FakeDispatcher, politely: bool) -> None:
    """Any status ends a stream, none ends the worker; credits are given anew."""
    async with WorkerRoom(dispatcher):
        await dispatcher.hear("credit")
        dispatcher.cut(politely=politely)
        await dispatcher.hear("hello", count=2)
        assert (await dispatcher.hear("credit", count=2)).slots == 4


async def test_a_worker_leaves_an_owner_that_lost_the_pool(dispatcher: FakeDispatcher) -> None:
    """A dispatcher that stands still breaks no stream: the lease tells, and the worker goes to the new owner."""
    async with WorkerRoom(dispatcher) as room, FakeDispatcher(epoch=2) as heir:
        room.owner = heir.owner
        assert (await heir.hear("hello")).worker == "w1"
        assert (await heir.hear("credit")).slots == 4


async def test_a_worker_obeys_only_the_highest_epoch(dispatcher: FakeDispatcher) -> None:
    """An owner of an earlier epoch that comes back is not obeyed, whatever the lease says."""
    async with FakeDispatcher(epoch=5) as newer, WorkerRoom(newer) as room:
        room.owner = dispatcher.owner
        hello = await dispatcher.hear("hello")
        assert hello.highest_epoch == 5
        dispatcher.assign(task("t1"))
        await eventually(lambda: dispatcher.streams > 1)
        assert not room.worker._runs
        assert not room.worker.attached


async def test_heartbeats_and_progress_are_told(dispatcher: FakeDispatcher) -> None:
    """The dispatcher hears that the worker lives and how far each task is."""
    async with WorkerRoom(dispatcher, heartbeat_s=0.05):
        dispatcher.assign(task("t1", "[[sim rate=20]]"))
        progress = await dispatcher.hear("progress", "t1", count=2)
        assert 0 < progress.completion_tokens <= 20
        assert (await dispatcher.hear("heartbeat", count=3)).busy == 0.0


# -- leaving ------------------------------------------------------------------------------------------------------------


async def test_a_draining_worker_finishes_what_runs_and_takes_nothing_new(dispatcher: FakeDispatcher) -> None:
    """It says so in a new Hello, gives no credits, hands back what comes all the same, and is done when all is finished."""
    engine = ScriptedEngine()
    async with WorkerRoom(dispatcher, engine=engine) as room:
        dispatcher.assign(task("t1"))
        await dispatcher.hear("started", "t1")
        leaving = asyncio.create_task(room.worker.drain(8.0))
        hello = await dispatcher.hear("hello", count=2)
        assert hello.draining
        assert [r.task for r in hello.running] == ["t1"]
        dispatcher.assign(task("t2"))
        assert (await dispatcher.hear("finished", "t2")).handed_back
        engine.feed("t1", "to the end", END)
        assert (await dispatcher.hear("finished", "t1")).outcome.kind == COMPLETED
        await leaving
        assert dispatcher.credits == 0
        assert len(engine.requests) == 1


async def test_what_does_not_finish_in_time_is_handed_over(dispatcher: FakeDispatcher) -> None:
    """Its text is in the log, and the hand-over is no failure; another worker goes on from there."""
    engine, log = ScriptedEngine(), MemoryTokenLog()
    async with WorkerRoom(dispatcher, engine=engine, log=log) as room:
        attempt = dispatcher.assign(task("t1"))
        engine.feed("t1", "as far as here ")
        await eventually(lambda: room.logged("t1"))
        engine.feed("t1", "and a bit")
        await room.worker.drain(0.4)
        finished = await dispatcher.hear("finished", "t1", attempt)
        assert finished.handed_back
        assert not finished.failure
        assert (await read(log, "t1")) == ("as far as here and a bit", None)
        assert engine.stopped == ["t1"]


async def test_what_did_not_start_is_handed_back(dispatcher: FakeDispatcher) -> None:
    """A task that could not begin yet goes back at once."""
    log = MemoryTokenLog()
    async with WorkerRoom(dispatcher, log=log) as room:
        log.away = True
        dispatcher.assign(task("t1"))
        await eventually(lambda: room.worker._runs)
        room.worker.drain_for(60.0)

        def ends() -> list[pb.Finished]:  # a drain begins a new stream: what the old one did not carry is in its Hello
            return [*dispatcher.heard("finished"), *(end for h in dispatcher.heard("hello") for end in h.finished)]

        await eventually(lambda: any(end.task == "t1" and end.handed_back for end in ends()))
        await eventually(lambda: not room.worker._runs)
