"""The control law against its promises, for any pool, any sight of it and any past: 10,000 cases."""

import itertools
import math
import random
from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from millrace_operator.core.decide import decide
from millrace_operator.core.need import arrival_rate
from millrace_operator.core.scaling import BLIND_S, FROZEN_S, scale
from millrace_operator.core.vocabulary import Bound, Learned, Manual, Memory, Mode, Observation, Policy, ScalingReason

NOW = 1.7e9
THOUSAND = settings(max_examples=1000)


def drawn(make, **fixed):
    """A value of one number: ten thousand cases cost seconds, and a failure still prints the value."""
    return st.integers(0, 2**32).map(lambda number: make(random.Random(number), **fixed))


def instants(rng, most):
    return [
        NOW - rng.choice([0.0, 15.0, 45.0, 120.0, rng.uniform(0, 60), rng.uniform(0, 2000)])
        for _ in range(rng.randint(0, most))
    ]


def a_policy(rng, least=40):
    minimum = rng.choice([0, rng.randint(0, least)])
    return Policy(
        minimum=minimum,
        maximum=rng.randint(max(minimum, 1), 60),
        slots=rng.randint(1, 64),
        idle_s=rng.choice([0.0, rng.uniform(0, 1000)]),
        step_up=rng.randint(1, 20),
    )


def a_sight(rng, fewest=0, most=40, ages=(0.0, FROZEN_S)):
    """`ages`: of the signal, drawn between each two of them."""
    age = rng.choice([rng.uniform(low, high) for low, high in itertools.pairwise(ages)] + [ages[-1]])
    waiting = rng.choice([0, 1, rng.randint(0, 40), rng.randint(0, 5000)])
    return Observation(
        replicas=rng.randint(fewest, most),
        ready=rng.randint(0, 40),
        starting=tuple(instants(rng, 3)),
        draining=rng.randint(0, 5),
        signal_age_s=age,
        waiting=waiting,
        work_s=waiting * rng.choice([0.01, 1.0, rng.uniform(0, 20)]),
        running=rng.choice([0, rng.randint(0, 40)]),
        arrivals_fast=rng.choice([0.0, rng.uniform(0, 3), rng.uniform(0, 200)]),
        arrivals_slow=rng.choice([0.0, rng.uniform(0, 3), rng.uniform(0, 200)]),
        service_s=rng.choice([0.01, 1.0, rng.uniform(0.01, 60)]),
        lag=rng.choice([None, 0, rng.randint(1, 10_000)]),
    )


def a_memory(rng):
    """As ticks leave it: wishes that become fewer towards now, instants in the past; the last tick was just now, or long ago."""
    wishes = []
    for at in sorted(instants(rng, 4)):
        pods = rng.randint(0, rng.choice([3, 40]))
        wishes = [w for w in wishes if w[1] > pods] + [(at, pods)]
    if not wishes:
        return Memory()
    above, below, active = (rng.choice(instants(rng, 3) or [None]) for _ in range(3))
    ups = tuple((at, rng.randint(1, 3)) for at in instants(rng, 3))
    ticked_at = NOW - rng.choice([1.0, 1.0, rng.uniform(0, 2 * FROZEN_S), rng.uniform(0, 2000)])
    return Memory(tuple(wishes), above, below, active or NOW, ups, ticked_at)


def unseen(memory):
    """Has nobody looked for so long that a signal of then would be stale?"""
    return memory.ticked_at is not None and NOW - memory.ticked_at > FROZEN_S


EVER = (0.0, FROZEN_S, BLIND_S, 300.0, math.inf)
NO_MORE = (math.nextafter(FROZEN_S, 99), BLIND_S, 300.0, math.inf)
LEARNED = drawn(
    lambda rng: Learned(rng.choice([1.0, rng.uniform(1, 500)]), rng.choice([0.0, 60.0, rng.uniform(0, 1200)]))
)
PAST = drawn(a_memory)
BY_HAND = st.none() | drawn(lambda rng: Manual(rng.randint(0, 70), NOW - rng.uniform(0, 1200)))


@THOUSAND
@given(
    drawn(a_policy),
    drawn(a_sight, ages=EVER),
    LEARNED,
    PAST,
    BY_HAND,
)
def test_the_bounds_of_people_hold_whatever_is_seen(policy, seen, learned, memory, manual):
    """Never below minReplicas or above maxReplicas; a number set by hand is a floor for its time, and no longer."""
    to = scale(policy, replace(seen, manual=manual), learned, memory, NOW).to
    assert policy.minimum <= to <= policy.maximum
    if manual and manual.at + policy.manual_hold_s > NOW:
        assert to >= min(manual.replicas, policy.maximum)
    elif manual:
        assert to == scale(policy, seen, learned, memory, NOW).to


@THOUSAND
@given(
    drawn(a_policy), drawn(a_sight, ages=EVER), LEARNED, PAST, st.sampled_from([m for m in Mode if m is not Mode.AUTO])
)
def test_only_in_mode_auto_anything_moves(policy, seen, learned, memory, mode):
    """Paused holds, Manual and External leave the number to others: even beyond the bounds."""
    decision = decide(replace(policy, mode=mode), seen, learned, memory, NOW)
    assert decision.desired == seen.replicas
    assert decision.bound is Bound.MODE


@THOUSAND
@given(drawn(a_policy), drawn(a_sight, ages=NO_MORE), LEARNED, PAST)
def test_nothing_is_lowered_on_a_stale_signal(policy, seen, learned, memory):
    """Older than 15 s: the number stays; older than 60 s: the lag may raise it, and never lowers it."""
    outcome = scale(policy, seen, learned, memory, NOW)
    assert outcome.to >= min(seen.replicas, policy.maximum)
    bounded = min(max(seen.replicas, policy.minimum), policy.maximum)
    if seen.signal_age_s <= BLIND_S or not seen.lag:
        assert outcome.to == bounded
    elif seen.replicas == 0:
        assert outcome.to >= 1


@THOUSAND
@given(drawn(a_policy), drawn(a_sight), LEARNED, PAST, st.tuples(st.floats(0.01, 1e5), st.none() | st.integers(-1, 2)))
def test_more_waiting_work_never_gives_fewer_replicas(policy, seen, learned, memory, more_near):
    """All else equal, the number of waiting tasks too; and enough work asks for any number."""
    more, near = more_near
    few = scale(policy, seen, learned, memory, NOW)
    if near is not None:  # small steps
        seen = replace(seen, replicas=max(few.need.pods - near, 0))
        few = scale(policy, seen, learned, memory, NOW)
    many = scale(policy, replace(seen, work_s=seen.work_s + more), learned, memory, NOW)
    assert many.to >= few.to
    assert many.need.pods >= few.need.pods
    assert scale(policy, replace(seen, work_s=1e12), learned, memory, NOW).need.pods > policy.maximum


@THOUSAND
@given(drawn(a_policy, least=0), drawn(a_sight, fewest=1, most=3, ages=EVER), LEARNED, PAST, st.integers(0, 3))
def test_a_pool_goes_to_zero_only_seeing_that_it_was_idle(policy, seen, learned, memory, quiet):
    """Nothing waits, runs or arrives, for the idle time, on a signal that is fresh. And then it does go."""
    if quiet:  # most sights are busy
        seen = replace(seen, waiting=0, work_s=0.0, running=int(quiet == 1), arrivals_fast=0.0, arrivals_slow=0.0)
    to = scale(policy, seen, learned, memory, NOW).to
    idle = memory.active_at is not None and memory.active_at + policy.idle_s <= NOW
    seeing = seen.signal_age_s <= FROZEN_S
    busy = seen.waiting or seen.work_s or seen.running or arrival_rate(seen.arrivals_fast, seen.arrivals_slow)
    held = any(pods > 0 and at >= NOW - learned.hold_s for at, pods in memory.wishes or ((NOW, seen.replicas),))
    assert (to == 0) == (seeing and not busy and idle and not held and not unseen(memory))


@THOUSAND
@given(drawn(a_policy), drawn(a_sight, ages=EVER), LEARNED, PAST.filter(unseen))
def test_nothing_is_lowered_after_a_time_in_which_nobody_looked(policy, seen, learned, memory):
    """Whatever the first tick sees, unless people's bounds say so."""
    assert scale(policy, seen, learned, memory, NOW).to >= min(seen.replicas, policy.maximum)


@THOUSAND
@given(drawn(a_policy, least=0), drawn(a_sight, most=0), LEARNED, PAST)
def test_from_zero_the_first_work_is_answered_at_once(policy, seen, learned, memory):
    """In the same tick, with no confirmation and whatever was ordered before."""
    assume(seen.waiting or seen.work_s or seen.running)
    outcome = scale(policy, seen, learned, memory, NOW)
    assert outcome.to >= 1
    assert outcome.reason is ScalingReason.FROM_ZERO


@THOUSAND
@given(drawn(a_policy, least=3), drawn(a_sight, fewest=1), LEARNED, PAST)
def test_nothing_is_lowered_below_a_wish_that_is_held(policy, seen, learned, memory):
    """The highest wish within the hold stays; a memory that is empty holds what is there."""
    to = scale(policy, seen, learned, memory, NOW).to
    wishes = memory.wishes or ((NOW, seen.replicas),)
    held = max((pods for at, pods in wishes if at >= NOW - learned.hold_s), default=0)
    assert to >= min(held, seen.replicas, policy.maximum)


@THOUSAND
@given(drawn(a_policy), drawn(a_sight, fewest=1, ages=EVER), LEARNED, PAST)
def test_a_step_up_keeps_its_limit(policy, seen, learned, memory):
    """With what was ordered within the period; beyond it only people's bounds go."""
    decision = decide(policy, seen, learned, memory, NOW)
    ordered = sum(pods for at, pods in memory.ups if at > NOW - policy.step_period_s)
    up = decision.desired - seen.replicas
    assert up <= max(policy.step_up - ordered, policy.minimum - seen.replicas, 0)
    if up > 0 and decision.reason is not ScalingReason.BOUNDS:
        assert sum(p for at, p in decision.memory.ups if at > NOW - policy.step_period_s) == ordered + up


@THOUSAND
@given(drawn(a_policy), drawn(a_sight, ages=EVER), LEARNED, PAST)
def test_each_decision_is_one_sentence_that_names_from_and_to(policy, seen, learned, memory):
    """And says what bound it; the same sight at the next tick, if nothing changed, gives the same words."""
    decision = decide(policy, seen, learned, memory, NOW)
    assert decision.sentence.startswith(f"{seen.replicas} -> {decision.desired}: ")
    assert "\n" not in decision.sentence
    assert len(decision.sentence) <= 400
    bounds = {Bound.MINIMUM: "minReplicas", Bound.MAXIMUM: "maxReplicas", Bound.STEP: "at most"}
    assert bounds.get(decision.bound, "") in decision.sentence
    if decision.desired == seen.replicas and seen.signal_age_s > FROZEN_S:
        again = decide(policy, replace(seen, signal_age_s=seen.signal_age_s + 1e-6), learned, decision.memory, NOW + 5)
        assert again.sentence == decision.sentence or seen.starting


def a_trace(rng):
    return [
        (
            rng.randint(0, 400),
            rng.choice([0, rng.randint(0, 60)]),
            rng.choice([1.0] * 6 + [30.0, 100.0]),
            rng.choice([5.0] * 6 + [16.0, 100.0, 2000.0]),
        )
        for _ in range(8)
    ]


@THOUSAND
@given(drawn(a_policy, least=3), LEARNED, drawn(a_trace))
def test_a_replay_turns_from_up_to_down_at_most_once_in_a_hold(policy, learned, trace):
    """Whatever the load does, times blind or without a tick among it: between an order, or sight, and the next decrease
    lies the hold."""
    memory, replicas, raised, now = Memory(), policy.minimum, -math.inf, NOW
    ups = []
    for tick, (work, rate, age, gap) in enumerate(itertools.chain.from_iterable(itertools.repeat(m, 4) for m in trace)):
        now += gap if tick % 4 == 0 else 5.0
        seen = Observation(
            replicas=replicas, ready=replicas, signal_age_s=age, waiting=work, work_s=float(work * (tick % 3)),
            arrivals_fast=float(rate), arrivals_slow=float(rate), lag=work,
        )  # fmt: skip
        outcome = scale(policy, seen, learned, memory, now)
        if age > FROZEN_S or (tick and tick % 4 == 0 and gap > FROZEN_S):
            raised = now
        if outcome.to < replicas:
            assert now - raised > learned.hold_s
        elif outcome.to > replicas:
            raised = now
            ups.append((now, outcome.to - replicas))
            assert sum(n for at, n in ups if at > now - policy.step_period_s) <= max(policy.step_up, 1)
        replicas, memory = outcome.to, outcome.memory
        assert len(memory.wishes) <= policy.maximum + 1
