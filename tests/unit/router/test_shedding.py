"""Who is refused when too much waits, and when to come back."""

import pytest

from millrace.config.v1.config_pb2 import Pool
from millrace.dispatch.v1.dispatch_pb2 import PoolSignal
from millrace.task.v1.task_pb2 import (
    PRIORITY_CLASS_BACKGROUND,
    PRIORITY_CLASS_BATCH,
    PRIORITY_CLASS_CRITICAL,
    PRIORITY_CLASS_STANDARD,
)
from services.chassis.errors import ErrorCode
from services.router.core.shedding import LONGEST_S, SHORTEST_S, shed

POOL = Pool(name="p", slots=4, max_queue_s=10)
FULL = PoolSignal(wait_s=16, slots=8, busy_slots=8, workers=1)


@pytest.mark.parametrize("below", [PRIORITY_CLASS_STANDARD, PRIORITY_CLASS_BATCH, PRIORITY_CLASS_BACKGROUND])
def test_work_below_critical_is_shed_above_the_limit(below):
    """The refusal says how much waits and what the limit is."""
    problem = shed(POOL, FULL, "ada", below, jitter=0.0)
    assert problem.code is ErrorCode.SHED
    assert "16 s of waiting work" in problem.message


def test_critical_work_is_never_shed():
    """It is served first, so what waits is not in its way."""
    assert shed(POOL, FULL, "ada", PRIORITY_CLASS_CRITICAL, jitter=0.0) is None


def test_work_at_the_limit_is_accepted():
    """Above means above."""
    assert shed(POOL, PoolSignal(wait_s=10, slots=8, busy_slots=8), "ada", PRIORITY_CLASS_BATCH, jitter=0.0) is None


def test_retry_after_is_the_time_in_which_the_excess_drains():
    """Six seconds too much: six seconds while all slots work, twelve while half of them do."""
    half = PoolSignal(wait_s=16, slots=8, busy_slots=4)
    assert shed(POOL, FULL, "ada", PRIORITY_CLASS_BATCH, jitter=0.0).retry_after_s == 6
    assert shed(POOL, half, "ada", PRIORITY_CLASS_BATCH, jitter=0.0).retry_after_s == 12


def test_jitter_spreads_those_who_were_refused_together():
    """Up to half as long again."""
    assert shed(POOL, FULL, "ada", PRIORITY_CLASS_BATCH, jitter=0.999).retry_after_s == pytest.approx(9, abs=0.01)


def test_retry_after_stays_sensible():
    """Neither at once nor in an hour."""
    little = PoolSignal(wait_s=10.01, slots=8, busy_slots=8)
    stuck = PoolSignal(wait_s=16, slots=8, busy_slots=0)
    assert shed(POOL, little, "ada", PRIORITY_CLASS_BATCH, jitter=0.0).retry_after_s == SHORTEST_S
    assert shed(POOL, stuck, "ada", PRIORITY_CLASS_BATCH, jitter=0.0).retry_after_s == LONGEST_S


def test_a_pool_without_workers_takes_what_one_worker_would():
    """From zero the first work is what starts a worker; without bound it would wait for ever."""
    some, much = PoolSignal(work_s=39), PoolSignal(work_s=41)
    assert shed(POOL, some, "ada", PRIORITY_CLASS_STANDARD, jitter=0.0) is None
    assert shed(POOL, much, "ada", PRIORITY_CLASS_STANDARD, jitter=0.0) is not None


def test_a_tenant_that_did_not_fill_the_queue_gets_in():
    """Only those with at least the mean waiting are refused; who they are says the dispatcher."""
    crowded = PoolSignal(wait_s=60, slots=8, busy_slots=8, heavy=["ada"])
    assert shed(POOL, crowded, "ada", PRIORITY_CLASS_BATCH, jitter=0.0) is not None
    assert shed(POOL, crowded, "bob", PRIORITY_CLASS_BATCH, jitter=0.0) is None
