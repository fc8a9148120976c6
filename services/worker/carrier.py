"""The way of one attempt: fence, read, decide, generate, log the end, run the end routine."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from services.chassis.backoff import backoff
from services.chassis.clock import monotonic, now
from services.chassis.deadline import remaining
from services.chassis.errors import ErrorCode
from services.chassis.metrics import worker_engine_faults, worker_tokens
from services.tasklog.core import outcomes
from services.tasklog.core.entries import Begin, Fenced, Header, Lost, Written
from services.tasklog.ending import Destinations, end_of_task
from services.tasklog.ports import RedisAwayError, RunChangedError
from services.worker.core.attempt_plan import EndAgain, Generate, LogAgain, Settled, Stop, plan_start
from services.worker.core.credits import EngineHealth
from services.worker.flusher import Flusher
from services.worker.ports import Engine, EngineFault, EngineRequest, FaultKind, Prompts
from services.worker.task_run import TaskRun

log = logging.getLogger(__name__)

LONGEST_S: Final = 86400.0  # no task may run for longer
OWNER_S: Final = 0.05  # before another attempt is asked for in a new Redis run: its owner may not have seen it yet
CLAIM_S: Final = 900.0  # a log outlives deadline and retention by this much, should nobody come to end the task


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """Carries attempts. `started` is called when the engine gets a task, `freed` when it is done with one."""

    name: str
    to: Destinations
    flusher: Flusher
    engine: Engine
    prompts: Prompts
    health: EngineHealth
    started: Callable[[TaskRun], None]
    freed: Callable[[TaskRun], None]

    async def carry(self, run: TaskRun) -> Settled:
        """Carry the run's present attempt until it settles; after LOGGED its end routine is done too.

        May be cancelled anywhere: the next attempt finds its place. The engine's work outlives it unless it is stopped.
        """
        answer = run.answer
        below = await self._begin(run)
        if isinstance(below, Lost):
            return Settled.LOST
        match plan_start(answer.attempt, below, holds_text=answer.gen != 0):
            case Stop():
                return Settled.FENCED
            case EndAgain(terminal, text):
                run.stop_engine()
                answer.begin(terminal.gen, text)
                answer.outcome = terminal.outcome
                await end_of_task(self.to, run.task, terminal.gen, text, terminal.outcome)
                return Settled.LOGGED
            case LogAgain():
                refused = await self._log_again(run)
                if refused:
                    return refused
            case Generate(gen, prefix):
                answer.begin(gen, prefix, self.prompts.count(prefix) if prefix else 0)
                self._generate(run, prefix)
        if not run.settled.done():
            run.open = True
            self.flusher.mark(run)
        settled = await run.settled
        if settled is Settled.LOGGED:
            assert answer.outcome is not None
            await end_of_task(self.to, run.task, answer.gen, answer.text, answer.outcome)
        return settled

    async def _begin(self, run: TaskRun) -> Begin | Fenced | Lost:
        """Write the header, however long Redis is away: a task that was assigned stays here until somebody says otherwise.

        Lost in any other run than the one in which the attempt was given: this one may have forgotten a higher header, and
        where it was forgotten this attempt would not be refused.
        """
        delays = backoff(0.05, 1.0)
        token_log, task = self.to.log, run.task
        keep_s = remaining(run.deadline, now(), at_most=LONGEST_S) + outcomes.retention_s(task) + CLAIM_S
        header: Header | None = None
        while True:
            try:
                if header is None and (run_id := run.run_id or token_log.run_id):
                    run.answer.run_id = run_id
                    header = Header(run.answer.attempt, self.name, secrets.token_hex(8), run.answer.run_id)
                if header:
                    return await token_log.begin(task.id, header, keep_s)
            except RedisAwayError as reason:
                log.info("task %s waits to begin: %s", task.id, reason)
            except RunChangedError:
                await asyncio.sleep(OWNER_S)
                return Lost()
            await asyncio.sleep(next(delays))

    async def _log_again(self, run: TaskRun) -> Settled | None:
        """Write the whole text under the new attempt, with its terminal if it had ended. None: go on from there."""
        answer, delays = run.answer, backoff(0.05, 1.0)
        answer.log_again()
        while True:
            delta = answer.delta()
            whole = delta or answer.nothing()
            terminal = answer.terminal(whole.end) if answer.outcome is not None else None
            if not (delta or terminal):
                return None
            try:
                result = await self.to.log.rewrite(answer.run_id, run.task.id, whole, terminal)
            except RunChangedError:
                return Settled.LOST
            except RedisAwayError:
                await asyncio.sleep(next(delays))
                continue
            match result:
                case Fenced():
                    return Settled.FENCED
                case Lost():
                    return Settled.LOST
                case Written(routes):
                    self.flusher.tell(run, [entry for entry in (delta, terminal) if entry], routes)
            if delta:
                answer.written(delta)
            if terminal:
                run.settle(Settled.LOGGED)
            return None

    def _generate(self, run: TaskRun, prefix: str) -> None:
        """Start the engine, or end the task at once where it would be no use."""
        task, answer, sampling = run.task, run.answer, run.task.sampling
        if run.cancelled:
            run.end(outcomes.cancelled)
            return
        if not remaining(run.deadline, now()):
            run.end(outcomes.expired)
            return
        try:
            prompt = self.prompts.render(task.messages)
        except ValueError as refusal:
            run.end(partial(outcomes.failed, ErrorCode.INVALID_REQUEST, str(refusal)))
            return
        run.prompt_tokens = self.prompts.count(prompt)
        room = self.prompts.context - run.prompt_tokens
        if room <= 0:
            message = f"the prompt has {run.prompt_tokens} tokens, the model holds {self.prompts.context}"
            run.end(partial(outcomes.failed, ErrorCode.INVALID_REQUEST, message))
            return
        max_tokens = min(sampling.max_tokens, room) - answer.tokens
        if max_tokens <= 0:
            run.end(partial(outcomes.completed, "length"))
            return
        request = EngineRequest(
            request_id=f"{task.id}-{answer.attempt}",
            prompt=prompt,
            forced_prefix=prefix,
            max_tokens=max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p or 1.0,
            seed=sampling.seed if sampling.HasField("seed") else None,
            stop=tuple(sampling.stop),
            deadline=run.deadline,
        )
        run.sign_at = monotonic()
        run.pump = asyncio.create_task(self._pump(run, request), name=f"engine {task.id}")
        run.pump.add_done_callback(lambda _: self.freed(run))
        self.started(run)

    async def _pump(self, run: TaskRun, request: EngineRequest) -> None:
        """Take the engine's text until its end. Ends with an outcome, or with the attempt closing as failed."""
        answer, mark, first = run.answer, self.flusher.mark, True
        before = answer.tokens
        try:
            async with contextlib.aclosing(self.engine.generate(request)) as chunks:
                async for chunk in chunks:
                    run.sign_at, run.began = monotonic(), True
                    answer.tokens += chunk.tokens
                    if chunk.text:
                        answer.take(chunk.text)
                        mark(run, at_once=first)
                        first = False
                    if chunk.finish_reason:
                        if chunk.usage:
                            run.prompt_tokens = chunk.usage.prompt_tokens
                            run.cached_tokens = chunk.usage.cached_tokens
                        run.end(partial(outcomes.completed, chunk.finish_reason))
                        self.health.success()
                        mark(run)
                        return
            self._fault(run, EngineFault(FaultKind.CONTINUE_ELSEWHERE, "the engine stopped without an end"))
        except EngineFault as fault:
            self._fault(run, fault)
        except Exception as error:
            log.exception("the engine adapter failed on task %s", run.task.id)
            self._fault(run, EngineFault(FaultKind.CONTINUE_ELSEWHERE, f"{type(error).__name__} in the worker"))
        finally:
            worker_tokens.inc(answer.tokens - before)

    def _fault(self, run: TaskRun, fault: EngineFault) -> None:
        """A fatal fault is the task's end; after any other, another attempt goes on from what is logged.

        An engine that is away costs the task none of its attempts: else a restart of the engine would use up all of them.
        """
        worker_engine_faults.labels(fault.kind).inc()
        log.warning("task %s attempt %d: %s, %s", run.task.id, run.answer.attempt, fault.message, fault.kind)
        if fault.code == ErrorCode.EXPIRED:
            run.end(outcomes.expired)
        elif fault.kind is FaultKind.FATAL:
            run.end(partial(outcomes.failed, fault.code, fault.message))
        elif fault.kind is FaultKind.AWAY:
            self.health.away()
            run.close(Settled.HANDED_BACK)
        else:
            self.health.fault(monotonic())
            run.fail(fault.message)
        self.flusher.mark(run)
