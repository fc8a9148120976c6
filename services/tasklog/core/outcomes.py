"""How the end of a task is put into words: outcomes, timings, usage records.

All of it is a function of the task and of what happened, so the end routine gives the same record however often it runs.
"""

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from millrace.task.v1.task_pb2 import (
    CACHE_MARK_UNSPECIFIED,
    OUTCOME_KIND_CANCELLED,
    OUTCOME_KIND_COMPLETED,
    OUTCOME_KIND_EXPIRED,
    OUTCOME_KIND_FAILED,
    CacheMark,
    Outcome,
    Task,
    Timings,
    Usage,
    UsageRecord,
)

RETENTION_S: Final = 300.0  # an unread answer's, when the task names none


def retention_s(task: Task) -> float:
    """Seconds that the answer is kept unread."""
    return task.retention.ToTimedelta().total_seconds() if task.HasField("retention") else RETENTION_S


def timings(
    task: Task, now: float, *, started_at: float | None = None, first_text_at: float | None = None, attempts: int = 0
) -> Timings:
    """Seconds in each stage, from instants in Unix seconds. None: it never started, there never was text.

    Clocks of two machines may disagree by milliseconds; no stage is shown as negative.
    """
    submitted = _seconds(task.submitted_at)
    return Timings(
        queued_s=max((now if started_at is None else started_at) - submitted, 0.0),
        ttft_s=0.0 if first_text_at is None else max(first_text_at - submitted, 0.0),
        total_s=max(now - submitted, 0.0),
        attempts=attempts,
    )


def completed(finish_reason: str, usage: Usage, timings: Timings, cache: CacheMark = CACHE_MARK_UNSPECIFIED) -> Outcome:
    """The answer is whole: `finish_reason` is `stop` or `length`."""
    return Outcome(kind=OUTCOME_KIND_COMPLETED, finish_reason=finish_reason, usage=usage, timings=timings, cache=cache)


def cancelled(usage: Usage, timings: Timings) -> Outcome:
    """Someone who may do so asked for it."""
    return Outcome(
        kind=OUTCOME_KIND_CANCELLED,
        finish_reason="cancelled",
        error_code="cancelled",
        error_message="the task was cancelled",
        usage=usage,
        timings=timings,
    )


def expired(usage: Usage, timings: Timings) -> Outcome:
    """Its deadline passed."""
    return Outcome(
        kind=OUTCOME_KIND_EXPIRED,
        finish_reason="expired",
        error_code="expired",
        error_message="the task's deadline passed",
        usage=usage,
        timings=timings,
    )


def failed(code: str, message: str, usage: Usage, timings: Timings) -> Outcome:
    """`code` is a name from `services/chassis/errors.py`, `message` for people."""
    return Outcome(
        kind=OUTCOME_KIND_FAILED,
        finish_reason="error",
        error_code=code,
        error_message=message,
        usage=usage,
        timings=timings,
    )


def usage_record(task: Task, gen: int, outcome: Outcome) -> UsageRecord:
    """What the topic `usage` gets when the text `gen` of the task ended."""
    record = UsageRecord(
        task=task.id,
        gen=gen,
        tenant=task.tenant,
        api_key=task.api_key,
        model=task.model,
        pool=task.pool,
        priority_class=task.priority_class,
        outcome=outcome,
        metadata=task.metadata,
    )
    record.ended_at.FromNanoseconds(task.submitted_at.ToNanoseconds() + round(outcome.timings.total_s * 1e9))
    return record


def _seconds(instant: Timestamp) -> float:
    return instant.seconds + instant.nanos / 1e9
