"""The conditions of a WorkerPool: what is said, from plain facts, and since when.

Messages change only with what they tell, never with the clock, so that a status is written when there is news.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from millrace_operator.core.decide import Decision, clock
from millrace_operator.core.reasons import Condition, ConditionType, Reason
from millrace_operator.core.scaling import BLIND_S, FROZEN_S
from millrace_operator.core.troubles import PodFacts, Shown, usable
from millrace_operator.core.vocabulary import Bound, Mode, Policy

LATELY_S: Final = 900.0  # after the last dead letter; the window of the alert MillracePoisonedTasks


@dataclass(frozen=True, slots=True)
class Saying:
    """A condition without its times."""

    type: str
    holds: bool
    reason: Reason
    message: str


def ready(
    policy: Policy,
    pods: Sequence[PodFacts],
    shown: Shown,
    *,
    desired: int,
    ready_s: float,
    leaves: str,
    made: bool,
    now: float,
) -> Saying:
    """Do workers take tasks, or would the first task start one? If neither: the one sentence why.

    `leaves`: how far a pool is that is being deleted, "" of another one; `made`: has it a Deployment?
    """

    def saying(holds: bool, reason: Reason, message: str) -> Saying:
        return Saying(ConditionType.READY, holds, reason, message)

    trouble, take = shown.shown, usable(pods, shown, now)
    besides = f"; {trouble.sentence}" if trouble else ""
    if leaves:
        return saying(False, Reason.DELETING, leaves)
    if take:
        return saying(True, Reason.SERVING, f"{take} of {desired} workers take tasks{besides}")
    if desired == 0 and (made or not trouble):
        if policy.mode is Mode.AUTO and policy.maximum > 0:
            message = f"no worker, because no work waits; the first task starts one{besides}"
            return saying(True, Reason.AT_ZERO, message)
        return saying(False, Reason.NO_WORKERS, f"the mode is {policy.mode} and replicas is 0")
    if trouble:
        return saying(False, trouble.reason, trouble.sentence)
    births = [pod.created for pod in pods if not pod.draining]
    if not births:
        return saying(False, Reason.NO_WORKERS, f"{desired} wanted, and no pod has been made yet")
    return saying(False, Reason.STARTING, f"the first worker is expected at {clock(min(births) + ready_s)}")


def scaling_active(policy: Policy) -> Saying:
    """Does the operator choose the number?"""
    reason, message = {
        Mode.AUTO: (Reason.AUTOMATIC, "the operator follows the waiting work"),
        Mode.MANUAL: (Reason.MANUAL, "spec.replicas is what people write"),
        Mode.EXTERNAL: (Reason.EXTERNAL, "another autoscaler writes the scale subresource"),
        Mode.PAUSED: (Reason.PAUSED, "nothing is changed"),
    }[policy.mode]
    return Saying(ConditionType.SCALING_ACTIVE, policy.mode is Mode.AUTO, reason, message)


def scaling_limited(policy: Policy, decision: Decision) -> Saying:
    """Does a bound keep the number from what the work asks for?"""
    match decision.bound:
        case Bound.MAXIMUM:
            limit = (Reason.AT_MAXIMUM, f"the work asks for more than maxReplicas, {policy.maximum}")
        case Bound.MINIMUM:
            limit = (Reason.AT_MINIMUM, f"the work asks for fewer than minReplicas, {policy.minimum}")
        case Bound.STEP:
            limit = (Reason.STEP_LIMIT, f"at most {policy.step_up} workers more in {policy.step_period_s:g} s")
        case Bound.MANUAL:
            limit = (Reason.MANUAL_HOLD, f"somebody scaled by hand; a floor for {policy.manual_hold_s:g} s")
        case _:
            return Saying(ConditionType.SCALING_LIMITED, False, Reason.WITHIN_LIMITS, "no bound is in the way")
    return Saying(ConditionType.SCALING_LIMITED, True, *limit)


def signal_fresh(age_s: float) -> Saying:
    """Is the dispatcher's report recent? `age_s`: inf when there was none."""
    if age_s <= FROZEN_S:
        return Saying(ConditionType.SIGNAL_FRESH, True, Reason.FRESH, "the dispatcher reports its work")
    if age_s <= BLIND_S:
        message = f"no report for over {FROZEN_S:g} s; the number of workers stays"
        return Saying(ConditionType.SIGNAL_FRESH, False, Reason.STALE, message)
    message = f"no report for over {BLIND_S:g} s; Kafka's lag may raise the number of workers, nothing lowers it"
    return Saying(ConditionType.SIGNAL_FRESH, False, Reason.LOST, message)


def draining(pods: int) -> Saying:
    """Do workers finish their last tasks?"""
    if not pods:
        return Saying(ConditionType.DRAINING, False, Reason.NOTHING_DRAINS, "no worker is leaving")
    some = "1 worker finishes its last tasks" if pods == 1 else f"{pods} workers finish their last tasks"
    return Saying(ConditionType.DRAINING, True, Reason.WORKERS_DRAIN, some)


def poisoned(dead: int, last_at: float, now: float) -> Saying:
    """Were tasks given up lately? `dead`: by the dispatcher that gave up the last one, at `last_at` (Unix s; -inf: none was).

    >>> poisoned(3, 43390.0, now=43400.0).message
    '3 tasks were given up since its dispatcher took the pool, the last at 12:03:10Z; `millrace dead list` shows them'
    """
    if now - last_at >= LATELY_S:
        message = f"no task was given up within {LATELY_S / 60:g} min"
        return Saying(ConditionType.POISONED, False, Reason.NO_DEAD_LETTERS, message)
    some = "1 task was" if dead == 1 else f"{dead} tasks were"
    message = f"{some} given up since its dispatcher took the pool, the last at {clock(last_at)}; `millrace dead list` shows them"
    return Saying(ConditionType.POISONED, True, Reason.DEAD_LETTERS, message)


def crd_outdated(cluster: Mapping[str, str], own: Mapping[str, str]) -> Saying:
    """Has the cluster other definitions than this operator was built with? Both as digests by kind; older or newer is not known.

    >>> crd_outdated({"Tenant": "a1", "WorkerPool": "c3"}, {"Tenant": "b2", "WorkerPool": "c3"}).message
    "the cluster's Tenant is a1, this operator's b2; install the CRDs and the operator of one release"
    """
    others = [
        f"the cluster's {kind} is {cluster.get(kind, 'not served') or 'without a digest'}, this operator's {digest}"
        for kind, digest in own.items()
        if cluster.get(kind) != digest
    ]
    if not others:
        return Saying(
            ConditionType.CRD_OUTDATED, False, Reason.SCHEMA_CURRENT, "the cluster has this operator's schema"
        )
    message = f"{'; '.join(others)}; install the CRDs and the operator of one release"
    return Saying(ConditionType.CRD_OUTDATED, True, Reason.SCHEMA_DIFFERS, message)


def merge(before: Iterable[Condition], sayings: Iterable[Saying], generation: int, now: float) -> tuple[Condition, ...]:
    """The conditions to write, in the order of the sayings. A time changes only with its status.

    `before`: as written last, for their times alone; conditions of other types are not ours and stay behind the others.

    >>> first = merge([], [draining(1)], generation=1, now=0.0)
    >>> later = merge(first, [draining(2)], generation=2, now=60.0)
    >>> later[0].last_transition_time == first[0].last_transition_time, later[0].observed_generation
    (True, 2)
    """
    known = {condition.type: condition for condition in before}
    merged = []
    for saying in sayings:
        status: Literal["True", "False"] = "True" if saying.holds else "False"
        old = known.pop(saying.type, None)
        at = old.last_transition_time if old and old.status == status else datetime.fromtimestamp(now, UTC)
        merged.append(
            Condition(
                type=saying.type,
                status=status,
                reason=saying.reason,
                message=saying.message,
                last_transition_time=at.replace(microsecond=0),
                observed_generation=generation,
            )
        )
    return (*merged, *known.values())
