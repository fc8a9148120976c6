"""When a pool has more to do than it may keep waiting, and when it makes sense to come back."""

from typing import Final

from millrace.config.v1.config_pb2 import Pool
from millrace.dispatch.v1.dispatch_pb2 import PoolSignal
from millrace.task.v1.task_pb2 import PRIORITY_CLASS_CRITICAL, PriorityClass
from services.chassis.errors import ErrorCode, Problem

SHORTEST_S: Final = 1.0
LONGEST_S: Final = 60.0


def waiting_s(pool: Pool, signal: PoolSignal) -> float:
    """Seconds that a new task would wait. A pool without workers is taken for one worker's slots: it is starting one."""
    return signal.wait_s if signal.slots else signal.work_s / max(pool.slots, 1)


def shed(pool: Pool, signal: PoolSignal, tenant: str, priority_class: PriorityClass, jitter: float) -> Problem | None:
    """Refuse work below critical while more waits than `max_queue_s` per slot. `jitter`: uniform in [0, 1).

    Refused are those who fill the queue: a tenant with less than the mean waiting gets in, however full others made it.

    The queue drains by as many seconds per second as its slots are busy, so the excess is gone after excess x slots / busy;
    up to half as much again is added at random, so that those who were refused together do not come back together.

    >>> pool, signal = Pool(name="p", max_queue_s=10), PoolSignal(wait_s=16, slots=8, busy_slots=6)
    >>> print(shed(pool, signal, "ada", PriorityClass.PRIORITY_CLASS_BATCH, jitter=0.5))
    shed: pool p has 16 s of waiting work per slot, 10 s is its limit for work below critical
    >>> shed(pool, signal, "ada", PriorityClass.PRIORITY_CLASS_BATCH, jitter=0.5).retry_after_s
    10.0
    """
    if priority_class == PRIORITY_CLASS_CRITICAL:
        return None
    waiting = waiting_s(pool, signal)
    if waiting <= pool.max_queue_s or (signal.heavy and tenant not in signal.heavy):
        return None
    drain = signal.busy_slots / signal.slots if signal.slots else 0.0
    gone_after = (waiting - pool.max_queue_s) / drain if drain else LONGEST_S
    return Problem(
        ErrorCode.SHED,
        f"pool {pool.name} has {waiting:.0f} s of waiting work per slot, {pool.max_queue_s:.0f} s is its limit for work "
        "below critical",
        retry_after_s=min(max(gone_after, SHORTEST_S), LONGEST_S) * (1 + jitter / 2),
    )
