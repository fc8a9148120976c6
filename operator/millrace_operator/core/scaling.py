"""How many workers a pool should have: the control law on seconds of work. A pure function of what is seen and remembered.

Up at once to what the work needs (`need`), small steps once they lasted; down only to the highest wish of a hold; to zero
only after an idle time that was seen. Without a fresh signal, or after a time without a tick, nothing goes down, and people's
bounds hold in all cases.
"""

from dataclasses import replace
from typing import Final

from millrace_operator.core.need import needed
from millrace_operator.core.vocabulary import (
    Bound,
    Learned,
    Memory,
    Mode,
    Need,
    Observation,
    Outcome,
    Policy,
    ScalingReason,
)

FROZEN_S: Final = 15.0  # a signal older than this moves nothing, and ticks further apart left a time unseen
BLIND_S: Final = 60.0  # one older than this: Kafka's lag counts, as a lower bound
SMALL: Final = 0.1  # a step of one pod or up to this share of the pool is small: it has to last
CONFIRM_UP_S, CONFIRM_DOWN_S = 45.0, 120.0


def scale(policy: Policy, seen: Observation, learned: Learned, memory: Memory, now: float) -> Outcome:
    """The replicas a pool should ask for at `now` (Unix s).

    41 s of work for 8 busy pods of 8 slots, two more are 12 s away: without new arrivals they are enough.

    >>> seen = Observation(replicas=10, ready=8, starting=(72.0, 72.0), signal_age_s=0.2, waiting=20, work_s=41, running=64)
    >>> scale(Policy(maximum=12), seen, Learned(40.0, 100.0), Memory(), now=100.0).to
    10
    >>> seen = replace(seen, arrivals_fast=80, arrivals_slow=80)
    >>> outcome = scale(Policy(maximum=24), seen, Learned(40.0, 100.0), Memory(), now=100.0)
    >>> outcome.to, outcome.need.pods, outcome.reason.value, outcome.bound.value
    (16, 16, 'LoadGrew', '')
    """
    if memory.ticked_at is not None and now - memory.ticked_at > FROZEN_S:
        memory = _blind(memory, seen, now)
    memory = replace(memory, ticked_at=now)
    if policy.mode is not Mode.AUTO:
        return Outcome(seen.replicas, ScalingReason.MODE, Bound.MODE, Need(seen.replicas), _blind(memory, seen, now))
    if seen.signal_age_s > FROZEN_S:
        return _bounded(policy, seen, _unseen(policy, seen, learned, memory, now), now)
    need = needed(policy, seen, learned, now)
    memory = _remember(memory, min(need.pods, policy.maximum), seen, now)
    return _bounded(policy, seen, _follow(policy, seen, learned, need, memory=memory, now=now), now)


def highest(memory: Memory, since: float) -> int:
    """The highest wish since then."""
    return next((pods for at, pods in memory.wishes if at >= since), 0)


def _remember(memory: Memory, wish: int, seen: Observation, now: float) -> Memory:
    """With the wish of now. A memory that is empty takes what is there for a wish: an operator's start lowers nothing."""
    wishes = memory.wishes or ((now, seen.replicas),)
    wishes = (*(w for w in wishes if w[1] > wish), (now, wish))
    return replace(memory, wishes=wishes, active_at=now if wish or memory.active_at is None else memory.active_at)


def _blind(memory: Memory, seen: Observation, now: float) -> Memory:
    """Nobody looks, or looked, so what is there counts as wished and as active: holds and idle times begin when sight is back."""
    memory = _remember(memory, seen.replicas, seen, now)
    return replace(memory, above_since=None, below_since=None, active_at=now)


def _unseen(policy: Policy, seen: Observation, learned: Learned, memory: Memory, now: float) -> Outcome:
    """The signal is stale: hold. Once it is lost, the lag may raise; nothing lowers."""
    memory, still = _blind(memory, seen, now), Need(seen.replicas)
    if seen.signal_age_s <= BLIND_S:
        return Outcome(seen.replicas, ScalingReason.SIGNAL_STALE, Bound.SIGNAL, still, memory)
    lag = seen.lag or 0
    guess = replace(seen, waiting=lag, work_s=lag * seen.service_s, running=0, arrivals_fast=0.0, arrivals_slow=0.0)
    need = needed(policy, guess, learned, now)
    if need.pods <= seen.replicas:
        return Outcome(seen.replicas, ScalingReason.SIGNAL_LOST, Bound.SIGNAL, still, memory)
    return _stepped(policy, seen, Outcome(need.pods, ScalingReason.LAG, Bound.NONE, need, memory), now)


def _follow(policy: Policy, seen: Observation, learned: Learned, need: Need, *, memory: Memory, now: float) -> Outcome:
    """Up at once, or once a small step has lasted; down to the highest wish of the hold; to zero after the idle time."""
    current = seen.replicas
    if need.pods > current:
        since = now if memory.above_since is None else memory.above_since
        memory = replace(memory, above_since=since, below_since=None)
        small = need.pods - current <= max(1.0, SMALL * current) and seen.work_s < need.service_s
        if current and small and now < since + CONFIRM_UP_S:
            return Outcome(current, ScalingReason.CONFIRMING, Bound.CONFIRM, need, memory, since + CONFIRM_UP_S)
        grown = ScalingReason.LOAD_GREW if need.carried > current else ScalingReason.WORK_WAITS
        return _stepped(
            policy,
            seen,
            Outcome(need.pods, grown if current else ScalingReason.FROM_ZERO, Bound.NONE, need, memory),
            now,
        )
    memory = replace(memory, above_since=None)
    held = highest(memory, now - learned.hold_s)
    if held >= current:
        memory = replace(memory, below_since=None)
        if need.pods == current:
            return Outcome(current, ScalingReason.STEADY, Bound.NONE, need, memory)
        until = max(at for at, pods in memory.wishes if pods >= current) + learned.hold_s
        return Outcome(current, ScalingReason.HELD, Bound.HOLD, need, memory, until)
    since = now if memory.below_since is None else memory.below_since
    memory = replace(memory, below_since=since)
    if held == 0 and policy.minimum == 0:
        until = (now if memory.active_at is None else memory.active_at) + policy.idle_s
        if now >= until:
            return Outcome(0, ScalingReason.IDLE, Bound.NONE, need, replace(memory, below_since=None))
        if current == 1:
            return Outcome(1, ScalingReason.HELD, Bound.IDLE, need, memory, until)
    to = max(held, 1)
    if current - to < max(1.0, SMALL * current) and now < since + CONFIRM_DOWN_S:
        return Outcome(current, ScalingReason.HELD, Bound.CONFIRM, need, memory, since + CONFIRM_DOWN_S)
    return Outcome(to, ScalingReason.LOAD_FELL, Bound.NONE, need, replace(memory, below_since=None))


def _stepped(policy: Policy, seen: Observation, outcome: Outcome, now: float) -> Outcome:
    """At most `step_up` pods more within any step period; the first pod is never denied."""
    ups = tuple(up for up in outcome.memory.ups if up[0] > now - policy.step_period_s)
    allowed = max(policy.step_up - sum(pods for _, pods in ups), 0 if seen.replicas else 1)
    step = min(outcome.to - seen.replicas, allowed, policy.maximum - seen.replicas)
    if step > 0:
        memory = replace(outcome.memory, above_since=None, ups=(*ups, (now, step)))
        bound = outcome.bound if seen.replicas + step == outcome.to else Bound.STEP
        return replace(outcome, to=seen.replicas + step, bound=bound, memory=memory)
    return replace(
        outcome,
        to=seen.replicas,
        reason=ScalingReason.LIMITED,
        bound=Bound.STEP,
        memory=replace(outcome.memory, ups=ups),
    )


def _bounded(policy: Policy, seen: Observation, outcome: Outcome, now: float) -> Outcome:
    """People's numbers hold whatever feedback says: a manual floor, minReplicas, and above all maxReplicas."""
    to, bound = outcome.to, outcome.bound
    manual = seen.manual
    if manual and now < manual.at + policy.manual_hold_s and manual.replicas > to:
        to, bound = manual.replicas, Bound.MANUAL
    if policy.minimum > to:
        to, bound = policy.minimum, Bound.MINIMUM
    if to > policy.maximum or (to == policy.maximum < outcome.need.pods):
        to, bound = policy.maximum, Bound.MAXIMUM
    low, high = sorted((seen.replicas, outcome.to))
    reason = outcome.reason
    if to == seen.replicas != outcome.to:
        reason = ScalingReason.LIMITED
    elif not low <= to <= high:
        reason = ScalingReason.BOUNDS
    return replace(outcome, to=to, bound=bound, reason=reason)
