"""One bucket: what it admits, when it says to come back, what is left."""

import pytest

from services.limits.core.gcra import Limit, take

TEN_A_MINUTE = Limit(rate=10, period_s=60, burst=20)


def test_a_fresh_bucket_admits_its_burst_at_once_and_no_more():
    """Twenty pass, the twenty-first waits for one unit."""
    tat = 0.0
    for n in range(20):
        verdict = take(TEN_A_MINUTE, tat, 1, now=1e9)
        assert verdict.allowed
        assert verdict.remaining == 19 - n
        tat = verdict.tat
    refused = take(TEN_A_MINUTE, tat, 1, now=1e9)
    assert not refused.allowed
    assert refused.retry_after_s == 6.0
    assert refused.tat == tat


def test_waiting_retry_after_admits():
    """The time that is told is enough, and a millisecond less is not."""
    tat = take(TEN_A_MINUTE, 0.0, 20, now=1e9).tat
    wait = take(TEN_A_MINUTE, tat, 7, now=1e9).retry_after_s
    assert not take(TEN_A_MINUTE, tat, 7, now=1e9 + wait - 0.001).allowed
    assert take(TEN_A_MINUTE, tat, 7, now=1e9 + wait).allowed


def test_a_cost_above_the_burst_is_never_admitted():
    """There is no time after which to retry."""
    verdict = take(TEN_A_MINUTE, 0.0, 20.5, now=1e9)
    assert not verdict.allowed
    assert verdict.retry_after_s is None
    assert verdict.remaining == 20


def test_asking_takes_nothing():
    """Cost 0 shows the bucket as it is, empty or full."""
    tat = take(TEN_A_MINUTE, 0.0, 20, now=1e9).tat
    asked = take(TEN_A_MINUTE, tat, 0, now=1e9)
    assert (asked.allowed, asked.tat, asked.remaining, asked.reset_s) == (True, tat, 0.0, 120.0)


def test_idle_time_is_not_banked_beyond_the_burst():
    """A bucket that rested for a day holds one burst."""
    tat = take(TEN_A_MINUTE, 0.0, 20, now=1e9).tat
    assert take(TEN_A_MINUTE, tat, 20, now=1e9 + 86_400).allowed
    assert not take(TEN_A_MINUTE, tat, 21, now=1e9 + 86_400).allowed


def test_reset_tells_when_the_bucket_is_full():
    """After that time the whole burst can be taken again."""
    verdict = take(TEN_A_MINUTE, 0.0, 5, now=1e9)
    assert verdict.reset_s == pytest.approx(30.0)
    assert take(TEN_A_MINUTE, verdict.tat, 20, now=1e9 + verdict.reset_s).allowed


def test_a_smaller_limit_takes_effect_on_a_bucket_in_use():
    """After a change of policy the debt stays and the new burst holds."""
    tat = take(TEN_A_MINUTE, 0.0, 20, now=1e9).tat
    refused = take(Limit(rate=10, period_s=60, burst=2), tat, 1, now=1e9)
    assert (refused.allowed, refused.remaining) == (False, 0.0)
