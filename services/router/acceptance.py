"""One submission, from the plan to the commit.

The order is the promise. Refusals come first, and only for a task that is not known yet: whoever was refused may be sure that
nothing runs. Then the claim, which finds every earlier try of the same key. Then the produce; from here on the only bad news
is `unavailable`, which means that the same key will find out. The state `accepted` follows without being waited for, since a
claim counts as queued.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import random

from millrace.cache.v1.cache_pb2 import Answer
from millrace.router.v1.router_pb2 import Accepted, AcceptReply, AcceptRequest, Rejected
from millrace.task.v1.task_pb2 import CACHE_MARK_EXACT, Outcome, Task
from services.chassis.background import Background
from services.chassis.clock import monotonic, now
from services.chassis.deadline import remaining
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.kafka import KafkaAwayError
from services.chassis.metrics import router_produce_seconds
from services.router.core.routes import Routes, choose
from services.router.core.shedding import shed
from services.router.leaders import Leaders
from services.router.ports import PoolSignals, TaskSink
from services.router.settings import RouterSettings
from services.tasklog.core.entries import Fenced, Lost
from services.tasklog.core.outcomes import completed, timings
from services.tasklog.ending import Destinations, answer_from_cache
from services.tasklog.ports import RedisAwayError, RunChangedError, TaskControl

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class World:
    """What a submission touches."""

    control: TaskControl
    sink: TaskSink
    ends: Destinations
    signals: PoolSignals


class Acceptance:
    """Accepts tasks. `routes` is None until the first configuration was seen."""

    def __init__(
        self, world: World, settings: RouterSettings, writer: str, jitter: Callable[[], float] = random
    ) -> None:
        self._world = world
        self._settings = settings
        self._writer = writer
        self._jitter = jitter
        self._leaders = Leaders(world.control)
        self._behind = Background()
        self.routes: Routes | None = None

    async def accept(self, request: AcceptRequest, deadline: float) -> AcceptReply:
        """Answer by `deadline` (Unix s, 0 = none). Raises ProblemError(unavailable) once the produce was tried."""
        task = request.task
        answer = request.answer if request.HasField("answer") else None
        try:
            plan = await self._plan(task, answered=answer is not None)
            if isinstance(plan, Problem):
                known = await self._world.control.get(task.id)
                if known is None:
                    return _rejected(plan)
                plan = known.pool  # a try that was not refused came before: this one can only find it
            task.pool = plan
            claim = await self._world.control.claim(task, self._keep_s(task))
        except RedisAwayError as reason:
            return _rejected(Problem(ErrorCode.UNAVAILABLE, f"tasks cannot be claimed: {reason}"))
        if not claim.mine:
            return _rejected(
                Problem(ErrorCode.IDEMPOTENCY_CONFLICT, "the idempotency key was used with another request", "key")
            )
        repeated = claim.tries > 1
        if self.routes and claim.pool in self.routes.pools:
            task.pool = claim.pool  # two pools would run it twice
        if claim.state != "claimed":
            return _accepted(task, repeated=True)
        if answer is not None:
            logged = await self._log_answer(task, answer, claim.tries, deadline)
            # Only a first try is sure that there is no record whose end is still to come.
            self._later(self._world.control.accepted if repeated else self._world.control.ended, task.id)
            return _accepted(task, repeated or not logged)
        await self._produce(task, deadline)
        self._later(self._world.control.accepted, task.id)
        return _accepted(task, repeated)

    async def drained(self) -> None:
        """Wait for the states that are still being written."""
        await self._behind.over()

    async def _plan(self, task: Task, *, answered: bool) -> str | Problem:
        """The task's pool, or why it is refused. A follower whose leader cannot be found runs by itself."""
        routes, instant = self.routes, now()
        if routes is None:
            return Problem(ErrorCode.UNAVAILABLE, "there is no configuration yet")
        route = routes.routes.get(task.model)
        if route is None:
            return Problem(ErrorCode.UNKNOWN_MODEL, f"there is no model {task.model}", "model")
        if not remaining(_deadline(task), instant):
            return Problem(ErrorCode.EXPIRED, "the task's deadline passed before it was accepted")
        if task.joined:
            leader = await self._leaders.find(task.joined) if task.joined != task.id else None
            if leader and leader.tenant == task.tenant and leader.pool in routes.pools:
                return leader.pool
            task.joined = ""
        pool = choose(route, task.id, self._workers)
        signal = self._world.signals.latest(pool)
        if answered or signal is None:
            return pool
        return shed(routes.pools[pool], signal, task.tenant, task.priority_class, self._jitter()) or pool

    def _workers(self, pool: str) -> int | None:
        signal = self._world.signals.latest(pool)
        return None if signal is None else signal.workers

    def _keep_s(self, task: Task) -> float:
        return remaining(_deadline(task), now()) + self._settings.idempotency_s

    async def _produce(self, task: Task, deadline: float) -> None:
        began = monotonic()
        timeout_s = remaining(deadline, now(), at_most=self._settings.produce_s)
        if not timeout_s:
            # Nobody waits any more, and a later try may have been refused meanwhile: nothing may run after that.
            raise ProblemError(Problem(ErrorCode.UNAVAILABLE, "claiming the task took too long, its key may try again"))
        try:
            await self._world.sink.put(task, timeout_s)
        except KafkaAwayError as reason:
            raise ProblemError(
                Problem(ErrorCode.UNAVAILABLE, f"not known whether the task is queued, its key finds out: {reason}")
            ) from reason
        router_produce_seconds.observe(monotonic() - began)

    async def _log_answer(self, task: Task, answer: Answer, tries: int, deadline: float) -> bool:
        """The whole life of a cache hit; False if the task runs already."""
        instant = now()
        try:
            ended = await answer_from_cache(
                self._world.ends,
                task,
                tries,
                self._writer,
                text=answer.text,
                outcome=_outcome(task, answer, instant),
                patience_s=remaining(deadline, instant, at_most=self._settings.produce_s),
            )
        except (RedisAwayError, RunChangedError, KafkaAwayError) as reason:
            raise ProblemError(
                Problem(ErrorCode.UNAVAILABLE, f"not known whether the answer is logged, its key finds out: {reason}")
            ) from reason
        if isinstance(ended, Lost):
            raise ProblemError(Problem(ErrorCode.UNAVAILABLE, "another try of the key is at it, or its log was lost"))
        return not isinstance(ended, Fenced)

    def _later(self, write: Callable[[str], Awaitable[None]], task: str) -> None:
        self._behind.spawn(self._write(write, task))

    async def _write(self, write: Callable[[str], Awaitable[None]], task: str) -> None:
        try:
            await write(task)
        except RedisAwayError as reason:
            log.debug("the state of %s is not written: %s", task, reason)


def _outcome(task: Task, answer: Answer, instant: float) -> Outcome:
    measured = timings(task, instant, started_at=instant, first_text_at=instant)
    return completed(answer.finish_reason, answer.usage, measured, CACHE_MARK_EXACT)


def _deadline(task: Task) -> float:
    return task.deadline.seconds + task.deadline.nanos / 1e9


def _accepted(task: Task, repeated: bool) -> AcceptReply:
    return AcceptReply(accepted=Accepted(pool=task.pool, repeated=repeated, joined=task.joined))


def _rejected(problem: Problem) -> AcceptReply:
    rejected = Rejected(code=problem.code, message=problem.message)
    if problem.retry_after_s is not None:
        rejected.retry_after.FromNanoseconds(round(problem.retry_after_s * 1e9))
    return AcceptReply(rejected=rejected)
