"""The objects of `millrace.v1`: what clients and the gateway say to each other on a WebSocket, and in SSE as `data:`.

Field names are the protocol. Client objects refuse unknown fields; clients ignore fields of server objects they do not know.
"""

from typing import Any, Literal, TypeAlias

import msgspec

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from millrace.task.v1.task_pb2 import CacheMark, Outcome, OutcomeKind
from services.chassis.errors import ERRORS, ErrorCode, Problem
from services.gateway.core.estimates import Place
from services.gateway.core.submission import SubmitFields

PROTOCOL = "millrace.v1"


# -- client to gateway --------------------------------------------------------------------------------------------------


class Submit(SubmitFields, tag_field="t", tag="submit", forbid_unknown_fields=True, kw_only=True):
    """A prompt."""


class Resume(msgspec.Struct, tag_field="t", tag="resume", forbid_unknown_fields=True, kw_only=True):
    """Read a task from a cursor: from 0, or as last seen."""

    task: str
    gen: str = ""
    offset: int = 0


class Cancel(msgspec.Struct, tag_field="t", tag="cancel", forbid_unknown_fields=True, kw_only=True):
    """End the task soon; its `done` says `cancelled` unless it was faster."""

    task: str


class Event(msgspec.Struct, tag_field="t", tag="event", forbid_unknown_fields=True, kw_only=True):
    """A user event, for example feedback."""

    kind: str
    task: str = ""
    data: Any = None


class Seen(msgspec.Struct, tag_field="t", tag="seen", forbid_unknown_fields=True, kw_only=True):
    """The client has the whole answer: it need not be kept for long."""

    task: str


class Ping(msgspec.Struct, tag_field="t", tag="ping", forbid_unknown_fields=True, kw_only=True):
    """Answered with `pong`."""


ClientMessage: TypeAlias = Submit | Resume | Cancel | Event | Seen | Ping

decode_client_message = msgspec.json.Decoder(ClientMessage).decode


# -- gateway to client --------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, tag_field="t", tag="hello", kw_only=True):
    """First object on a connection."""

    protocol: str = PROTOCOL
    gateway: str
    heartbeat_s: float
    max_in_flight: int
    max_frame_bytes: int


class Ack(msgspec.Struct, tag_field="t", tag="ack", kw_only=True):
    """The task is committed. `cache` says where its answer comes from: null (the engine), `exact`, `coalesced`."""

    key: str
    task: str
    state: str
    position: int | None = None
    eta_s: float | None = None
    cache: str | None = None


class Status(msgspec.Struct, tag_field="t", tag="status", kw_only=True):
    """Where a waiting task stands; at most one per second and only on change."""

    task: str
    state: str
    position: int | None = None
    eta_s: float | None = None


class Delta(msgspec.Struct, tag_field="t", tag="delta", kw_only=True):
    """Text; `offset` is after it."""

    task: str
    gen: str
    offset: int
    text: str


class Restarted(msgspec.Struct, tag_field="t", tag="restarted", kw_only=True):
    """The text so far was lost: discard it and read on from offset 0 of this gen."""

    task: str
    gen: str
    offset: int = 0


class Usage(msgspec.Struct, kw_only=True):
    """Tokens."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Timings(msgspec.Struct, kw_only=True):
    """Seconds since the submission, and how many attempts started."""

    queued_s: float
    ttft_s: float
    total_s: float
    attempts: int


class TaskError(msgspec.Struct, kw_only=True):
    """Why a task ended without a whole answer."""

    code: str
    message: str
    retryable: bool


class Done(msgspec.Struct, tag_field="t", tag="done", kw_only=True):
    """The end; exactly one for each task. `outcome`: completed, cancelled, expired or failed."""

    task: str
    gen: str
    offset: int
    outcome: Literal["completed", "cancelled", "expired", "failed"]
    finish_reason: str
    usage: Usage
    timings: Timings
    cache: str | None = None
    error: TaskError | None = None


class Gone(msgspec.Struct, tag_field="t", tag="gone", kw_only=True):
    """No such task (`unknown`: also another tenant's), or its retention is over (`expired`)."""

    task: str
    code: Literal["unknown", "expired"]


class Error(msgspec.Struct, tag_field="t", tag="error", kw_only=True, omit_defaults=True):
    """A request was refused. Carries the `key` or the `task` it was about, if it had one."""

    code: str
    message: str
    retryable: bool = msgspec.UNSET  # type: ignore[assignment]
    key: str = ""
    task: str = ""
    field: str = ""
    retry_after_s: float | None = None


class GoingAway(msgspec.Struct, tag_field="t", tag="going_away", kw_only=True):
    """The gateway leaves: connect again after the given time. Running tasks go on."""

    reconnect_in_s: float


class Pong(msgspec.Struct, tag_field="t", tag="pong", kw_only=True):
    """Answer to `ping`."""


encode = msgspec.json.Encoder().encode

PONG = encode(Pong())
_OUTCOMES: dict[int, Literal["completed", "cancelled", "expired", "failed"]] = {
    OutcomeKind.OUTCOME_KIND_COMPLETED: "completed",
    OutcomeKind.OUTCOME_KIND_CANCELLED: "cancelled",
    OutcomeKind.OUTCOME_KIND_EXPIRED: "expired",
    OutcomeKind.OUTCOME_KIND_FAILED: "failed",
}
_MARKS: dict[int, str] = {CacheMark.CACHE_MARK_EXACT: "exact", CacheMark.CACHE_MARK_COALESCED: "coalesced"}


def delta_prefix(task: str, gen: str) -> bytes:
    """The bytes of a delta that stay the same until the gen changes; `delta` continues them."""
    return b'{"t":"delta","task":%b,"gen":%b,"offset":' % (encode(task), encode(gen))


def delta(prefix: bytes, offset: int, text: str) -> bytes:
    """One delta, as `encode(Delta(...))` would write it, at a fifth of the cost.

    >>> delta(delta_prefix("abc", "g1"), 2, "hi")
    b'{"t":"delta","task":"abc","gen":"g1","offset":2,"text":"hi"}'
    """
    return b'%b%d,"text":%b}' % (prefix, offset, encode(text))


def place(status: TaskStatus) -> Place:
    """Where a task stands, if it waits."""
    if status.state != "queued":
        return Place()
    return Place(status.position or None, round(status.eta_s, 1))


def status(task: str, state: str, where: Place) -> Status:
    """Where a task stands as clients see it."""
    return Status(task=task, state=state, position=where.position, eta_s=where.eta_s)


def outcome_name(outcome: Outcome) -> Literal["completed", "cancelled", "expired", "failed"]:
    """The word for how a task ended."""
    return _OUTCOMES.get(outcome.kind, "failed")


def task_error(outcome: Outcome) -> TaskError | None:
    """Why it ended without a whole answer; None if it completed."""
    if not outcome.error_code:
        return None
    retryable = ERRORS[code_named(outcome.error_code)].retryable
    return TaskError(code=outcome.error_code, message=outcome.error_message, retryable=retryable)


def code_named(name: str) -> ErrorCode:
    """The error code that another service named; one that this gateway does not know counts as a bug."""
    try:
        return ErrorCode(name)
    except ValueError:
        return ErrorCode.INTERNAL


def usage_of(outcome: Outcome) -> Usage:
    """Tokens of an outcome."""
    u = outcome.usage
    return Usage(prompt_tokens=u.prompt_tokens, cached_tokens=u.cached_tokens, completion_tokens=u.completion_tokens)


def done(task: str, gen: str, offset: int, outcome: Outcome) -> Done:
    """The end of a task as clients see it."""
    t = outcome.timings
    return Done(
        task=task,
        gen=gen,
        offset=offset,
        outcome=outcome_name(outcome),
        finish_reason=outcome.finish_reason,
        usage=usage_of(outcome),
        timings=Timings(
            queued_s=round(t.queued_s, 4), ttft_s=round(t.ttft_s, 4), total_s=round(t.total_s, 4), attempts=t.attempts
        ),
        cache=_MARKS.get(outcome.cache),
        error=task_error(outcome),
    )


def error(problem: Problem, *, key: str = "", task: str = "") -> Error:
    """A refusal as clients see it."""
    return Error(
        code=problem.code.value,
        message=problem.message,
        retryable=problem.row.retryable,
        key=key,
        task=task,
        field=problem.field,
        retry_after_s=problem.retry_after_s,
    )
