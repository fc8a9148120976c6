"""How many pods the work needs, without any bound: the load with head-room, and the backlog projected to the time to ready.

The backlog is projected to the instant at which a pod ordered now would be ready, pods under way counted as capacity from
their own instants on (Smith's predictor, 1957); what is left then is burned within a share of that time.
"""

import math
from collections.abc import Sequence
from typing import Final

from millrace_operator.core.vocabulary import Learned, Need, Observation, Policy

BURN: Final = 0.3  # share of the time to ready within which a projected backlog shall be gone
STAFFING: Final = 1.0  # square-root staffing (Halfin, Whitt 1981): slots for the load's own noise, in its deviations
FAST_S, SLOW_S = 20.0, 60.0  # the windows of the arrival rates
SIGNIFICANT: Final = 1.5  # deviations of a Poisson count by which the fast window must exceed the slow one
MANY_WAIT: Final = 20  # tasks; from here on their mean estimate may raise the learned service time
TALL: Final = 4.0  # at most so many times


def needed(policy: Policy, seen: Observation, learned: Learned, now: float) -> Need:
    """Pods for what arrives, what waits and what runs, on a signal that can be trusted."""
    rate, service_s = arrival_rate(seen.arrivals_fast, seen.arrivals_slow), mean_service(seen)
    load = rate * service_s
    carried = max(load / (policy.slots * policy.headroom), (load + STAFFING * math.sqrt(load)) / policy.slots)
    etas = [eta(birth, learned.ready_s, now) for birth in seen.starting]
    backlog_s = project(
        seen.work_s, load, seen.ready * policy.slots, etas, slots=policy.slots, horizon_s=learned.ready_s
    )
    burn_s = max(policy.wait_s, BURN * learned.ready_s)
    pods = math.ceil(carried + backlog_s / (policy.slots * burn_s) - 1e-9)
    busy = seen.waiting > 0 or seen.work_s > 0 or seen.running > 0 or rate > 0
    return Need(max(pods, 1) if busy else 0, load, carried, backlog_s, burn_s, service_s)


def arrival_rate(fast: float, slow: float) -> float:
    """Tasks a second. The fast window is noisy: it is believed only where it exceeds the slow one significantly.

    >>> arrival_rate(1.2, 1.0), arrival_rate(4.0, 1.0)
    (1.0, 4.0)
    """
    noise = math.sqrt(max(slow, 0.1) / FAST_S)
    return fast if fast > slow + SIGNIFICANT * noise else slow


def mean_service(seen: Observation) -> float:
    """Seconds of a task: as learned, or more where many tasks wait and are estimated longer.

    >>> mean_service(Observation(replicas=1, waiting=100, work_s=600.0, service_s=2.0))
    6.0
    """
    if seen.waiting <= MANY_WAIT:
        return seen.service_s
    return max(seen.service_s, min(seen.work_s / seen.waiting, TALL * seen.service_s))


def eta(birth: float, ready_s: float, now: float) -> float:
    """Seconds until a starting pod is ready, at least 1. One that is late is expected to take as long again as it is late.

    So a pod that never becomes ready is not counted on any more once it took twice its time.

    >>> eta(birth=100.0, ready_s=40.0, now=128.0), eta(birth=100.0, ready_s=40.0, now=180.0)
    (12.0, 40.0)
    """
    left = birth + ready_s - now
    return max(left, -left, 1.0)


def project(work_s: float, load: float, capacity: int, etas: Sequence[float], *, slots: int, horizon_s: float) -> float:
    """Work (s) that will wait at the horizon: the load goes on as it is, pods of so many slots join at their instants.

    Load and capacity in slots, etas and horizon in seconds from now.

    >>> project(1000.0, load=20.0, capacity=16, etas=[10.0, 99.0], slots=16, horizon_s=40.0)
    680.0
    """
    at = 0.0
    for instant in (*sorted(min(e, horizon_s) for e in etas), horizon_s):
        work_s = max(work_s + (load - capacity) * (instant - at), 0.0)
        at, capacity = instant, capacity + slots
    return work_s
