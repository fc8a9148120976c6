"""A decision of the law as one value: what to do with pods, and the one sentence that status, Event and log show."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from millrace_operator.core.need import eta
from millrace_operator.core.scaling import BLIND_S, FROZEN_S, scale
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


@dataclass(frozen=True, slots=True)
class Decision:
    """`sentence` begins with `from -> to`. It changes only when there is something to tell, so it may stand in a status."""

    current: int
    desired: int
    reason: ScalingReason
    bound: Bound
    sentence: str
    need: Need
    wish: int | None  # what the work asks for, up to maxReplicas, for `Estimates.wished`; None: nobody could see
    memory: Memory  # give it to the next tick

    @property
    def changes(self) -> bool:
        """Are other replicas asked for than before? Only then it is an Event."""
        return self.desired != self.current


def decide(policy: Policy, seen: Observation, learned: Learned, memory: Memory, now: float) -> Decision:
    """What to ask for at `now` (Unix s), why, and in which words.

    >>> seen = Observation(
    ...     replicas=10, ready=8, starting=(72.0, 72.0), signal_age_s=0.2, waiting=2000, work_s=4100.0, running=64
    ... )
    >>> decision = decide(Policy(maximum=40, step_up=1), seen, Learned(40.0, 100.0), Memory(), now=100.0)
    >>> print(decision.sentence)
    10 -> 11: 4100 s of work wait for 8 pods of 8 slots and 2 more are 12 s away; wanted within 5 s; 12 are wanted, at most 1 may come within 30 s
    """
    outcome = scale(policy, seen, learned, memory, now)
    sees = policy.mode is Mode.AUTO and seen.signal_age_s <= FROZEN_S
    return Decision(
        seen.replicas,
        outcome.to,
        outcome.reason,
        outcome.bound,
        f"{seen.replicas} -> {outcome.to}: {_say(policy, seen, learned, outcome, now)}",
        outcome.need,
        min(outcome.need.pods, policy.maximum) if sees else None,
        outcome.memory,
    )


def _say(policy: Policy, seen: Observation, learned: Learned, outcome: Outcome, now: float) -> str:
    parts = [_because(policy, seen, learned, outcome, now), *_limit(policy, seen, outcome)]
    back = min(outcome.to - seen.ready - len(seen.starting), seen.draining)  # before a new pod is ordered
    if back > 0 and outcome.to > seen.replicas:
        parts.append(f"{back} of them {'comes' if back == 1 else 'come'} back from draining")
    return "; ".join(parts)


def _because(policy: Policy, seen: Observation, learned: Learned, outcome: Outcome, now: float) -> str:
    need = outcome.need
    match outcome.reason:
        case ScalingReason.FROM_ZERO:
            return f"{_work(seen)} and no pod is there; one takes about {_seconds(learned.ready_s)} to be ready"
        case ScalingReason.WORK_WAITS:
            return f"{_work(seen)} for {_pods(policy, seen, learned, now)}; wanted within {_seconds(policy.wait_s)}"
        case ScalingReason.LOAD_GREW:
            waits = f" while {_work(seen)}" if seen.work_s else ""
            return (
                f"what arrives keeps {need.load:.3g} slots busy{waits}, for {_pods(policy, seen, learned, now)}; "
                f"at most {policy.headroom:.0%} of the slots shall be busy"
            )
        case ScalingReason.LOAD_FELL:
            return f"no more were needed for {_seconds(learned.hold_s)}"
        case ScalingReason.IDLE:
            return f"nothing waited, ran or arrived for {_seconds(policy.idle_s)}"
        case ScalingReason.BOUNDS:
            return _rule(policy, seen, outcome.bound)
        case ScalingReason.STEADY:
            return "as many as needed"
        case ScalingReason.HELD if outcome.bound is Bound.IDLE:
            return f"nothing waits or runs; zero at {clock(outcome.until)}"
        case ScalingReason.HELD if outcome.bound is Bound.CONFIRM:
            return f"fewer would do; a small step down waits until {clock(outcome.until)}"
        case ScalingReason.HELD:
            return f"fewer would do; held until {clock(outcome.until)}"
        case ScalingReason.CONFIRMING:
            return f"{need.pods} would be better, if that lasts until {clock(outcome.until)}"
        case ScalingReason.LIMITED:
            return "more are wanted" if need.pods > outcome.to else "fewer are wanted"
        case ScalingReason.SIGNAL_STALE:
            return "the dispatcher's signal is stale; nothing moves on it"
        case ScalingReason.SIGNAL_LOST:
            lag = "Kafka's lag is unknown" if seen.lag is None else "Kafka's lag asks for no more"
            return f"{_silence(seen)}; nothing is lowered and {lag}"
        case ScalingReason.LAG:
            return f"{_silence(seen)}; {_count(seen.lag or 0, 'task')} of {_seconds(seen.service_s)} in Kafka ask for {need.pods}"
        case ScalingReason.MODE:
            return f"the mode is {policy.mode}: {_WHO[policy.mode]}"


_WHO = {
    Mode.AUTO: "the operator decides",
    Mode.MANUAL: "people set the number",
    Mode.PAUSED: "nothing moves",
    Mode.EXTERNAL: "another autoscaler sets the number",
}


def _limit(policy: Policy, seen: Observation, outcome: Outcome) -> list[str]:
    if outcome.reason is ScalingReason.BOUNDS or outcome.bound not in _RULES:
        return []
    rule = _rule(policy, seen, outcome.bound)
    if outcome.reason is ScalingReason.LIMITED:
        return [rule]
    return [f"{'1 is' if outcome.need.pods == 1 else f'{outcome.need.pods} are'} wanted, {rule}"]


_RULES = (Bound.MINIMUM, Bound.MAXIMUM, Bound.STEP, Bound.MANUAL)


def _rule(policy: Policy, seen: Observation, bound: Bound) -> str:
    match bound:
        case Bound.MINIMUM:
            return f"minReplicas is {policy.minimum}"
        case Bound.MAXIMUM:
            return f"maxReplicas is {policy.maximum}"
        case Bound.STEP:
            return f"at most {policy.step_up} may come within {_seconds(policy.step_period_s)}"
        case _:
            manual = seen.manual
            assert manual
            return f"{manual.replicas} were asked for by hand, a floor until {clock(manual.at + policy.manual_hold_s)}"


def _work(seen: Observation) -> str:
    if seen.work_s > 0:
        return f"{_seconds(seen.work_s)} of work wait"
    if seen.waiting or seen.running:
        waiting = f"{_count(seen.waiting, 'task')} wait" if seen.waiting else ""
        running = f"{_count(seen.running, 'task')} run" if seen.running else ""
        return " and ".join(filter(None, (waiting, running)))
    return "tasks arrive"


def _pods(policy: Policy, seen: Observation, learned: Learned, now: float) -> str:
    ready = f"{_count(seen.ready, 'pod')} of {_count(policy.slots, 'slot')}"
    if not seen.starting:
        return ready
    away = _seconds(math.ceil(max(eta(birth, learned.ready_s, now) for birth in seen.starting)))
    return f"{ready} and {len(seen.starting)} more {'is' if len(seen.starting) == 1 else 'are'} {away} away"


def _silence(seen: Observation) -> str:
    if math.isinf(seen.signal_age_s):
        return "the dispatcher has not said anything yet"
    return f"the dispatcher has said nothing for over {_seconds(BLIND_S)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _seconds(seconds: float) -> str:
    """Two digits where they matter.

    >>> _seconds(41.2), _seconds(0.25), _seconds(5.0)
    ('41 s', '0.25 s', '5 s')
    """
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def clock(instant: float) -> str:
    """Time of day, UTC.

    >>> clock(43390.0)
    '12:03:10Z'
    """
    return datetime.fromtimestamp(instant, UTC).strftime("%H:%M:%SZ")
