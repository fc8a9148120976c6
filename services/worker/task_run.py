"""One task on this worker, from its assignment until the dispatcher knows how it went."""

import asyncio
from collections.abc import Callable

from millrace.dispatch.v1.dispatch_pb2 import Assign
from millrace.task.v1.task_pb2 import Outcome, Route, Timings, Usage
from services.chassis.clock import monotonic, now
from services.tasklog.core import outcomes
from services.worker.core.answer import Answer
from services.worker.core.attempt_plan import Settled


class TaskRun:
    """A task, its text and what is going on with it.

    `open` says that the flusher may append to the task's log; it is false while an attempt begins, and from the moment the
    log was lost until the next attempt is granted. `closing` is how the attempt settles once what it has is logged.
    `cancel_wished` is what the log says, `cancelled` what the dispatcher made of it.
    """

    __slots__ = (
        "answer",
        "attempts",
        "began",
        "cached_tokens",
        "cancel_wished",
        "cancelled",
        "closing",
        "deadline",
        "dirty",
        "due",
        "failure",
        "first_text_at",
        "flushed_at",
        "job",
        "open",
        "prompt_tokens",
        "pump",
        "reported_tokens",
        "routes",
        "run_id",
        "settled",
        "sign_at",
        "started_at",
        "task",
    )

    def __init__(self, assign: Assign, answer: Answer) -> None:
        self.answer = answer
        self.prompt_tokens = self.cached_tokens = self.reported_tokens = 0
        self.started_at = assign.first_started.ToNanoseconds() / 1e9 if assign.HasField("first_started") else now()
        self.first_text_at: float | None = None
        self.sign_at = monotonic()  # when the engine last gave something, or was asked to
        self.began = False  # has it given anything since
        self.cancel_wished = self.cancelled = False
        self.dirty = False  # is it in the flusher's list
        self.due = self.flushed_at = 0.0  # by the loop's clock: its next flush, and its last one
        self.failure = ""
        self.closing: Settled | None = None
        self.job: asyncio.Task[None] | None = None  # carries the present attempt
        self.pump: asyncio.Task[None] | None = None  # takes the engine's text; outlives an attempt that lost its log
        self.take_attempt(assign)

    def take_attempt(self, assign: Assign) -> None:
        """Begin an attempt, the first or one more."""
        self.task = assign.task
        self.attempts = assign.attempts
        self.run_id = assign.run_id  # the only Redis run in which the attempt may begin; empty: any
        self.deadline = assign.task.deadline.seconds + assign.task.deadline.nanos / 1e9  # Unix seconds
        self.routes: tuple[Route, ...] = (assign.task.route,) if assign.task.HasField("route") else ()
        self.open = False
        self.settled: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()

    @property
    def undecided(self) -> bool:
        """Is the engine at work on it, with no end in sight?"""
        return bool(self.answer.gen) and self.answer.outcome is None and self.closing is None

    def settle(self, how: Settled) -> None:
        """The attempt is decided; only the first word counts."""
        self.open = False
        if not self.settled.done():
            self.settled.set_result(how)

    def end(self, outcome: Callable[[Usage, Timings], Outcome]) -> None:
        """The task ends with the text it has; its terminal is still to be logged. A second end changes nothing."""
        self.stop_engine()
        if self.answer.outcome is None:
            usage = Usage(
                prompt_tokens=self.prompt_tokens,
                cached_tokens=self.cached_tokens,
                completion_tokens=self.answer.tokens,
            )
            timings = outcomes.timings(
                self.task, now(), started_at=self.started_at, first_text_at=self.first_text_at, attempts=self.attempts
            )
            self.answer.outcome = outcome(usage, timings)

    def fail(self, message: str) -> None:
        """The attempt fails once what it has is logged; another goes on elsewhere."""
        self.failure = message
        self.close(Settled.FAILED)

    def close(self, how: Settled) -> None:
        """Settle once what there is is logged."""
        self.stop_engine()
        self.closing = self.closing or how

    def stop_engine(self) -> None:
        """Let the engine go; it is cancelled there too. Does nothing when called by the pump itself, which is at its end."""
        if self.pump and self.pump is not asyncio.current_task():
            self.pump.cancel()
