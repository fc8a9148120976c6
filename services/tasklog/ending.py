"""The end of a task: what happens after its terminal entry, the same for whoever writes or finds it.

Every step may be repeated: whoever takes over runs all of them again from the terminal entry. Three ways lead here. A worker
that logged a terminal, or found one, calls `end_of_task`. A dispatcher whose task never reaches a worker calls
`end_without_worker`. A router that has the answer from the cache calls `answer_from_cache`.
"""

import asyncio
import logging
import math
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from millrace.task.v1.task_pb2 import Outcome, Task
from services.chassis.backoff import backoff
from services.chassis.clock import now
from services.chassis.kafka import KafkaAwayError
from services.tasklog.core.entries import Continue, Delta, Ended, Fenced, Header, Lost, Terminal
from services.tasklog.core.ids import FIRST_OF_A_DISPATCHER, attempt_of_a_try
from services.tasklog.core.outcomes import retention_s, usage_record
from services.tasklog.ports import AnswerStore, RedisAwayError, TokenLog, UsageLog

log = logging.getLogger(__name__)

STORE_S: Final = 1.0  # for the answer store; a slow one costs a later miss, not the end of this task


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where the end of a task is written. Without `answers` nothing is cached."""

    log: TokenLog
    usage: UsageLog
    answers: AnswerStore | None = None


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """The end is in the log, written under `run_id`, and the end routine is done: `Finished` may be sent."""

    run_id: str
    gen: int
    text: str
    outcome: Outcome


async def end_of_task(
    to: Destinations, task: Task, gen: int, text: str, outcome: Outcome, *, patience_s: float = math.inf
) -> None:
    """The end routine: answer store, usage record, expiry. Call it once the terminal is in the log.

    Storing the answer is tried once. The other steps are repeated while Kafka or Redis is away, for at most `patience_s`;
    then it raises KafkaAwayError or RedisAwayError, and whoever comes next runs the routine again.
    """
    if to.answers and task.HasField("cache_ticket"):
        await _store(to.answers, task, text, outcome)
    until = asyncio.get_running_loop().time() + patience_s
    await _persist(lambda: to.usage.write(usage_record(task, gen, outcome)), until)
    await _persist(lambda: to.log.expire(task.id, retention_s(task)), until)


async def end_without_worker(
    to: Destinations, task: Task, attempt: int, writer: str, outcome: Outcome, *, patience_s: float = math.inf
) -> TaskEnded | Fenced | Lost:
    """End a task that no worker will run any more: fence, read below, log the end, run the end routine.

    An end that another attempt logged before stays the end. Text that can be continued stays, as the answer's incomplete
    text. Raises RedisAwayError and RunChangedError: then the end is unknown, and another attempt finds out.
    """
    header = _header(to, attempt, writer)
    match await to.log.begin(task.id, header, retention_s(task)):
        case Fenced() as fenced:
            return fenced
        case Ended(terminal, text):
            gen, outcome = terminal.gen, terminal.outcome
        case begun:
            gen, text = (begun.gen, begun.text) if isinstance(begun, Continue) else (attempt, "")
            end = Terminal(attempt, gen, len(text.encode()), outcome)
            match await to.log.append(header.run_id, [(task.id, end)]):
                case [Fenced() | Lost() as refused]:
                    return refused
    await end_of_task(to, task, gen, text, outcome, patience_s=patience_s)
    return TaskEnded(header.run_id, gen, text, outcome)


async def answer_from_cache(
    to: Destinations,
    task: Task,
    tries: int,
    writer: str,
    *,
    text: str,
    outcome: Outcome,
    patience_s: float = math.inf,
) -> TaskEnded | Fenced | Lost:
    """The whole life of a cache hit: header, text, end, usage. When it returns TaskEnded the task may be acknowledged.

    `tries` is the claim's. An end that an earlier try logged stays the end. Fenced means that a dispatcher has the task
    already; Lost, that the log vanished or another try is at it: then the same key finds out what became of it.
    """
    attempt = attempt_of_a_try(tries, now())
    header = _header(to, attempt, writer)
    match await to.log.begin(task.id, header, retention_s(task)):
        case Fenced():
            return await _overtaken(to, task)
        case Ended(terminal, text):
            gen, outcome = terminal.gen, terminal.outcome
        case begun:
            # An earlier try may have got as far as the text. Any other text is not continued: another one begins.
            gen = begun.gen if isinstance(begun, Continue) and begun.text == text else attempt
            end = len(text.encode())
            whole, terminal = Delta(attempt, gen, 0, end, text), Terminal(attempt, gen, end, outcome)
            match await to.log.rewrite(header.run_id, task.id, whole, terminal):
                case Fenced():
                    return await _overtaken(to, task)
                case Lost() as lost:
                    return lost
    await end_of_task(to, task, gen, text, outcome, patience_s=patience_s)
    return TaskEnded(header.run_id, gen, text, outcome)


def _header(to: Destinations, attempt: int, writer: str) -> Header:
    return Header(attempt, writer, secrets.token_hex(8), to.log.run_id)


async def _overtaken(to: Destinations, task: Task) -> Fenced | Lost:
    """By a dispatcher, which has the record and will end the task, or by another try, which may yet fail."""
    head = max((entry.attempt for entry in await to.log.read(task.id)), default=0)
    return Fenced() if head >= FIRST_OF_A_DISPATCHER else Lost()


async def _store(answers: AnswerStore, task: Task, text: str, outcome: Outcome) -> None:
    try:
        async with asyncio.timeout(STORE_S):
            await answers.store(task, text, outcome)
    except Exception as reason:  # noqa: BLE001 - whatever it is, it costs a later miss and nothing else
        log.warning("the answer of %s is not cached: %s", task.id, reason or type(reason).__name__)


async def _persist(step: Callable[[], Awaitable[None]], until: float) -> None:
    """Repeat a step while Kafka or Redis is away."""
    clock = asyncio.get_running_loop().time
    delays = backoff(0.05, 1.0)
    while True:
        try:
            return await step()
        except (KafkaAwayError, RedisAwayError) as reason:
            delay = next(delays)
            if clock() + delay > until:
                raise
            log.debug("the end of a task waits: %s", reason)
            await asyncio.sleep(delay)
