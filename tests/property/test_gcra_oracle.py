"""A bucket admits exactly what a brute-force token bucket in fractions admits."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from services.limits.core.gcra import Limit, take

STEP = Fraction(1, 64)  # seconds; sums of these are exact in a float


class Oracle:
    """Tokens, refilled at each step, in exact arithmetic."""

    def __init__(self, rate, period, burst):
        self.per_second, self.burst, self.tokens, self.at = (
            Fraction(rate) / Fraction(period),
            Fraction(burst),
            None,
            None,
        )

    def level(self, now):
        if self.tokens is None:
            return self.burst
        return min(self.burst, self.tokens + (now - self.at) * self.per_second)

    def take(self, cost, now):
        level = self.level(now)
        allowed = cost <= level
        self.tokens, self.at = (level - cost if allowed else level), now
        return allowed


powers = st.integers(-4, 8).map(lambda n: 2.0**n)
moves = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 80)), max_size=60)


@given(rate=powers, period=powers, burst=st.integers(4, 64), moves=moves)
def test_verdicts_remaining_and_waits_equal_the_oracle(rate, period, burst, moves):
    """Where the numbers are exact in binary the verdicts are exact: no window edges, no drift."""
    limit, oracle, tat = Limit(rate, period, burst / 4), Oracle(rate, period, Fraction(burst, 4)), 0.0
    now = Fraction(1_700_000_000)
    for steps, quarters in moves:
        now += steps * STEP
        cost = Fraction(quarters, 4)
        before = oracle.level(now)
        verdict = take(limit, tat, float(cost), float(now))
        assert verdict.allowed == oracle.take(cost, now)
        tat = verdict.tat
        assert Fraction(verdict.remaining) == oracle.level(now)
        if verdict.allowed:
            assert verdict.retry_after_s == 0
        elif cost > oracle.burst:
            assert verdict.retry_after_s is None
        else:
            assert Fraction(verdict.retry_after_s) == (cost - before) / oracle.per_second


@given(
    rate=st.floats(0.01, 1e5), period=st.floats(0.1, 1e5), burst=st.floats(1, 1e6),
    moves=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 2)), max_size=40),
)  # fmt: skip
def test_any_numbers_agree_with_the_oracle_up_to_the_clock(rate, period, burst, moves):
    """A verdict may differ from the exact one only where a microsecond decides."""
    limit, oracle, tat, now = Limit(rate, period, burst), Oracle(rate, period, burst), 0.0, 1.7e9
    for pause, share in moves:
        now += pause
        cost = share * burst
        lacking = (Fraction(cost) - oracle.level(Fraction(now))) / oracle.per_second
        verdict = take(limit, tat, cost, now)
        if abs(lacking) > Fraction(1, 100_000):
            assert verdict.allowed == (lacking < 0)
        tat = verdict.tat
        if verdict.allowed:
            level = oracle.level(Fraction(now))
            oracle.tokens, oracle.at = level - Fraction(cost), Fraction(now)


@given(st.floats(0.01, 1e5), st.floats(1, 1e6), st.floats(0, 1), st.floats(0, 1))
def test_after_the_told_wait_the_same_cost_is_admitted(rate, burst, first, second):
    """Retry-After is enough, whatever the rounding."""
    limit, now = Limit(rate, 60.0, burst), 1.7e9
    tat = take(limit, 0.0, first * burst, now).tat
    verdict = take(limit, tat, second * burst, now)
    if not verdict.allowed:
        assert take(limit, tat, second * burst, now + verdict.retry_after_s).allowed


@given(st.floats(1, 1e6), st.floats(0, 1e6), st.floats(1e-9, 1e6))
def test_a_cost_above_the_burst_never_passes(burst, idle, excess):
    """However long the bucket rested."""
    cost = burst + excess
    if cost > burst:
        assert not take(Limit(10, 1, burst), 0.0, cost, 1.7e9 + idle).allowed
