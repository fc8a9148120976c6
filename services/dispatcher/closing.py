"""How tasks end at the dispatcher: those that ended at a worker, those that no worker will run, and followers.

Every step may be repeated, by this owner or the next: the log decides. While Redis or Kafka is away the steps wait; the end of
the ownership cancels them and leaves the task to whoever reads its record again.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from millrace.task.v1.task_pb2 import (
    CACHE_MARK_COALESCED,
    OUTCOME_KIND_CANCELLED,
    OUTCOME_KIND_COMPLETED,
    OUTCOME_KIND_EXPIRED,
    OUTCOME_KIND_FAILED,
    DeadTask,
    Outcome,
    Usage,
)
from services.chassis.clock import monotonic, now
from services.chassis.errors import ErrorCode
from services.chassis.metrics import dispatcher_dead, dispatcher_ends
from services.dispatcher.core.decisions import Acknowledge, Close, Decision, Echo, End, FindHead, FindLeader, Follow
from services.dispatcher.core.task_state import Stage, TaskState
from services.dispatcher.ownership import Ownership, patiently
from services.tasklog.core import outcomes
from services.tasklog.core.entries import Delta, Ended, Fenced, Header, Lost, Terminal
from services.tasklog.core.outcomes import retention_s
from services.tasklog.core.reading import assemble
from services.tasklog.ending import TaskEnded, end_of_task, end_without_worker

log = logging.getLogger(__name__)

AT_ONCE: Final = 64  # ends written at the same time, when a whole queue expires


class Closing:
    """Carries the decisions about ends out. `act` takes what follows from them."""

    def __init__(self, own: Ownership, act: Callable[[Sequence[Decision]], None]) -> None:
        self._own = own
        self._act = act
        self._limit = asyncio.Semaphore(AT_ONCE)

    def carry_out(self, decisions: Sequence[Close | End | Echo | Follow | FindLeader | FindHead]) -> None:
        """Begin to; what ended at workers in one message is closed in one pipeline."""
        closes = [d for d in decisions if isinstance(d, Close)]
        if closes:
            self._own.spawn(self._close(closes), "closing")
        for decision in decisions:
            match decision:
                case End():
                    self._own.spawn(self._end(decision), "ending")
                case Echo():
                    self._own.spawn(self._echo(decision), "echoing")
                case Follow():
                    self._own.spawn(self._follow(decision), "following")
                case FindLeader():
                    self._own.spawn(self._find_leader(decision), "finding a leader")
                case FindHead():
                    self._own.spawn(self._find_head(decision), "finding a head")

    # -- ended at a worker ------------------------------------------------------------------------------------------------

    async def _close(self, closes: Sequence[Close]) -> None:
        await asyncio.gather(*(self._tell_ended(close.state) for close in closes))
        at = monotonic()
        decisions: list[Decision] = []
        for close in closes:
            decisions.append(Acknowledge(close.worker, close.state.id, close.attempt))
            decisions += self._own.table.closed(close.state, at, answered=close.answered)
        self._act(decisions)

    async def _tell_ended(self, state: TaskState) -> None:
        await patiently("writing an end", lambda: self._write_ended(state.id))

    async def _write_ended(self, task: str) -> None:
        # Only in the run that has the end: another one may have forgotten it, and this word would bury the task.
        self._own.check_run(self._own.world.to.log.run_id)
        await self._own.world.control.ended(task)

    # -- ended here -------------------------------------------------------------------------------------------------------

    async def _end(self, end: End) -> None:
        state = end.state
        async with self._limit:
            if end.kind == OUTCOME_KIND_FAILED:
                await patiently("burying a task", lambda: self._own.world.lanes.bury(self._dead(state)))
                dispatcher_dead.labels(self._own.pool).inc()
                self._own.table.buried(now())
            outcome = self._outcome(end)
            while True:
                ended = await patiently(
                    "ending a task",
                    lambda: end_without_worker(
                        self._own.world.to, state.task, state.attempt, self._own.world.writer, outcome
                    ),
                )
                if isinstance(ended, TaskEnded):
                    break
                await self._outrank(state, ended)
            self._own.check_run(ended.run_id)
            await self._ended(state, ended.outcome)

    async def _ended(self, state: TaskState, outcome: Outcome) -> None:
        await self._tell_ended(state)
        dispatcher_ends.labels(self._own.pool, outcome.finish_reason).inc()
        answered = outcome.kind == OUTCOME_KIND_COMPLETED
        self._act(self._own.table.closed(state, monotonic(), answered=answered))

    async def _outrank(self, state: TaskState, refused: Fenced | Lost) -> None:
        """Go above whoever fenced us. A log that is lost begins anew with the next attempt."""
        if isinstance(refused, Fenced):
            state.outranked(await self._head(state))
        state.outranked(self._own.table.next_attempt(state))

    def _outcome(self, end: End) -> Outcome:
        state = end.state
        usage, at = Usage(), now()
        times = outcomes.timings(state.task, at, started_at=state.first_started or None, attempts=state.history.begun)
        match end.kind:
            case kind if kind == OUTCOME_KIND_CANCELLED:
                return outcomes.cancelled(usage, times)
            case kind if kind == OUTCOME_KIND_EXPIRED:
                return outcomes.expired(usage, times)
            case _:
                return outcomes.failed(ErrorCode.ENGINE_FAILED, end.message, usage, times)

    def _dead(self, state: TaskState) -> DeadTask:
        dead = DeadTask(task=state.task, history=state.history.lines)
        dead.buried_at.GetCurrentTime()
        log.warning("task %s is dead: %s", state.id, "; ".join(state.history.lines))
        return dead

    # -- followers --------------------------------------------------------------------------------------------------------

    async def _follow(self, follow: Follow) -> None:
        """Name the leader in the follower's log, so that its readers find the text."""
        state = follow.state
        to = self._own.world.to
        run_id = self._own.held.run_id
        header = Header(follow.attempt, self._own.world.writer, secrets.token_hex(8), run_id, follow.leader)
        keep_s = max(state.deadline - monotonic(), 0.0) if state.task.HasField("deadline") else 0.0
        await patiently("following", lambda: to.log.begin(state.id, header, keep_s + retention_s(state.task)))

    async def _find_leader(self, find: FindLeader) -> None:
        world = self._own.world
        control = await patiently("finding a leader", lambda: world.control.get(find.leader))
        entries = await patiently("finding a leader", lambda: world.to.log.read(find.leader))
        end = next((e for e in entries if isinstance(e, Terminal)), None)
        answered = end is not None and end.outcome.kind == OUTCOME_KIND_COMPLETED
        to_come = control is not None and control.state != "ended" and end is None
        self._act(
            self._own.table.leader_found(find.state, find.leader, monotonic(), answered=answered, to_come=to_come)
        )

    async def _echo(self, echo: Echo) -> None:
        """Write the leader's answer as the follower's own: same text, same gen, so every reader's place stays valid."""
        state, to = echo.state, self._own.world.to
        async with self._limit:
            entries = await patiently("echoing", lambda: to.log.read(echo.leader))
            end = next((e for e in entries if isinstance(e, Terminal)), None)
            if end is None or end.outcome.kind != OUTCOME_KIND_COMPLETED:
                self._act(self._own.table.wait(state, first=True))  # it expired in between: run it after all
                return
            text = assemble(entries, end.gen)
            times = outcomes.timings(state.task, now())
            outcome = outcomes.completed(end.outcome.finish_reason, end.outcome.usage, times, CACHE_MARK_COALESCED)
            while True:
                ended = await patiently("echoing", lambda: self._write_echo(state, end, text, outcome))
                if not isinstance(ended, Fenced | Lost):
                    break
                await self._outrank(state, ended)
            await self._ended(state, ended)

    async def _write_echo(
        self, state: TaskState, end: Terminal, text: str, outcome: Outcome
    ) -> Outcome | Fenced | Lost:
        to, attempt = self._own.world.to, state.attempt
        header = Header(attempt, self._own.world.writer, secrets.token_hex(8), self._own.held.run_id)
        match await to.log.begin(state.id, header, retention_s(state.task)):
            case Fenced() as fenced:
                return fenced
            case Ended(terminal, found):
                await end_of_task(to, state.task, terminal.gen, found, terminal.outcome)
                return terminal.outcome
        whole = Delta(attempt, end.gen, 0, end.end, text)
        match await to.log.rewrite(header.run_id, state.id, whole, Terminal(attempt, end.gen, end.end, outcome)):
            case Fenced() | Lost() as refused:
                return refused
        await end_of_task(to, state.task, end.gen, text, outcome)
        return outcome

    # -- fenced by somebody else ------------------------------------------------------------------------------------------

    async def _find_head(self, find: FindHead) -> None:
        head = await self._head(find.state)
        if find.state.stage is Stage.EXPECTED:
            self._act(self._own.scheduler.head_found(find.state, head))

    async def _head(self, state: TaskState) -> int:
        entries = await patiently("finding a head", lambda: self._own.world.to.log.read(state.id))
        return max((e.attempt for e in entries), default=0)
