"""The load of a pool in numbers that others act on."""

from typing import Final

from millrace.dispatch.v1.dispatch_pb2 import ClassSignal, PoolSignal
from services.dispatcher.core.scheduler import Scheduler
from services.pools.core.lanes import CLASSES

HEAVY: Final = 64  # tenants named in a signal


def pool_signal(pool: str, scheduler: Scheduler, now: float, worker_slots: int = 1) -> PoolSignal:
    """Work in seconds: what waits by its cost, what runs by the time that a task still takes on average.

    A pool without workers waits as one with a worker of `worker_slots` would: the first task brings one.
    """
    roster, times, queue = scheduler.roster, scheduler.times, scheduler.table.queue
    classes = []
    for priority_class in CLASSES:
        waiting, cost = queue.waiting(priority_class)
        work_s = round(cost * times.per_cost(priority_class), 3)
        classes.append(ClassSignal(priority_class=priority_class, waiting=waiting, work_s=work_s))
    waiting_s = sum(c.work_s for c in classes)
    slots = roster.slots
    signal = PoolSignal(
        pool=pool,
        work_s=round(waiting_s + scheduler.running_work_s(now), 3),
        wait_s=round(waiting_s / max(slots, worker_slots, 1), 3),
        workers=roster.active,
        slots=slots,
        busy_slots=roster.busy,
        waiting=len(queue),
        service_s=round(times.mean_s, 3),
        classes=classes,
        heavy=queue.heavy(HEAVY) if waiting_s > slots else (),  # below a second of waiting nobody is refused
        arrived=scheduler.table.arrived,
        ended=times.ends,
        dead=scheduler.table.dead,
    )
    if signal.dead:
        signal.last_dead_at.FromNanoseconds(round(scheduler.table.last_dead_at * 1e9))
    return signal
