"""How an end is put into words."""

import pytest

from millrace.task.v1.task_pb2 import (
    CACHE_MARK_EXACT,
    OUTCOME_KIND_COMPLETED,
    PRIORITY_CLASS_BATCH,
    Task,
    Timings,
    Usage,
)
from services.chassis.errors import ERRORS, ErrorCode
from services.tasklog.core import outcomes

USAGE = Usage(prompt_tokens=3, completion_tokens=5)


def submitted(at_s=1000.5, **fields):
    task = Task(id="t", **fields)
    task.submitted_at.FromNanoseconds(int(at_s * 1e9))
    return task


def test_timings_count_from_the_submission():
    """Queued until it started, TTFT until the first text, total until now."""
    spent = outcomes.timings(submitted(), 1010.5, started_at=1002.5, first_text_at=1003.5, attempts=2)
    assert spent == Timings(queued_s=2.0, ttft_s=3.0, total_s=10.0, attempts=2)


def test_a_task_that_never_started_was_queued_all_the_time():
    """No TTFT, no attempt."""
    assert outcomes.timings(submitted(), 1010.5) == Timings(queued_s=10.0, ttft_s=0.0, total_s=10.0, attempts=0)


def test_clocks_that_disagree_make_no_negative_times():
    """The worker's clock may be behind the gateway's."""
    assert outcomes.timings(submitted(), 1000.0, started_at=999.0, first_text_at=999.0) == Timings()


def test_every_end_names_a_code_of_the_table():
    """What is not complete has a code and a sentence; what is complete has neither."""
    for outcome in (
        outcomes.cancelled(USAGE, Timings()),
        outcomes.expired(USAGE, Timings()),
        outcomes.failed(ErrorCode.ENGINE_FAILED, "no worker could run it", USAGE, Timings()),
    ):
        assert ErrorCode(outcome.error_code) in ERRORS
        assert outcome.error_message
        assert outcome.usage == USAGE
    whole = outcomes.completed("length", USAGE, Timings(), CACHE_MARK_EXACT)
    assert (whole.kind, whole.finish_reason, whole.error_code) == (OUTCOME_KIND_COMPLETED, "length", "")
    assert whole.cache == CACHE_MARK_EXACT


def test_a_usage_record_is_the_same_however_often_it_is_made():
    """It carries who pays for what; its time follows from the outcome, not from a clock."""
    task = submitted(tenant="acme", api_key="ci", model="m", pool="p", priority_class=PRIORITY_CLASS_BATCH)
    task.metadata["run"] = "7"
    outcome = outcomes.completed("stop", USAGE, Timings(total_s=2.25))
    record = outcomes.usage_record(task, 9, outcome)
    assert record == outcomes.usage_record(task, 9, outcome)
    assert (record.task, record.gen, record.tenant, record.api_key) == ("t", 9, "acme", "ci")
    assert (record.model, record.pool, record.priority_class) == ("m", "p", PRIORITY_CLASS_BATCH)
    assert record.ended_at.ToNanoseconds() == 1002_750_000_000
    assert dict(record.metadata) == {"run": "7"}
    assert record.outcome == outcome


def test_retention_is_the_tasks_own_or_five_minutes():
    """In seconds."""
    assert outcomes.retention_s(submitted()) == 300
    task = submitted()
    task.retention.FromMilliseconds(1500)
    assert outcomes.retention_s(task) == pytest.approx(1.5)
