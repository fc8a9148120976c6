"""One request over several buckets takes from all or from none, here and in a gateway that is on its own."""

import pytest

from millrace.config.v1 import config_pb2 as config
from millrace.limits.v1 import limits_pb2 as pb
from services.limits import local_limiter
from services.limits.check import buckets_of, reply_of, request_for
from services.limits.core.gcra import Limit
from services.limits.core.request import Bucket, decide
from services.limits.local_limiter import LocalLimiter

WIDE = Limit(rate=100, period_s=1, burst=100)
NARROW = Limit(rate=1, period_s=1, burst=2)


def tenant():
    limit = config.Limit(rate=60, burst=10)
    limit.period.seconds = 60
    return config.Tenant(name="acme", limits=config.Limits(key_requests=limit, tenant_tokens=limit))


def test_a_refusal_takes_nothing_from_the_buckets_that_admitted():
    """The wide bucket shows what it had before."""
    decision, kept = decide([Bucket("wide", WIDE, 1), Bucket("narrow", NARROW, 3)], {}, now=10.0)
    assert (decision.allowed, decision.refused_by, kept) == (False, 1, {})
    assert decision.verdicts[0].remaining == 100


def test_the_first_bucket_that_refuses_is_named():
    """A later one that would refuse too does not hide it."""
    decision, _ = decide([Bucket("a", NARROW, 3), Bucket("b", NARROW, 9)], {}, now=10.0)
    assert decision.refused_by == 0


def test_a_bucket_named_twice_is_taken_from_twice():
    """Two units fit, a third in the same request does not; its wait counts both."""
    twice, kept = decide([Bucket("a", NARROW, 1)] * 2, {}, now=10.0)
    assert twice.allowed
    assert kept == {"a": 12.0}
    thrice, kept = decide([Bucket("a", NARROW, 1)] * 3, {}, now=10.0)
    assert (thrice.refused_by, kept) == (2, {})


def test_a_request_names_the_limits_its_tenant_has():
    """An absent limit is no bucket; the tenant in braces keeps all names in one hash slot."""
    request = request_for(tenant(), "backend", tokens=250)
    assert [(b.name, b.cost) for b in request.buckets] == [
        ("{acme}:key:backend:requests", 1),
        ("{acme}:tokens", 250),
    ]
    assert not request_for(config.Tenant(name="free"), "k", tokens=1).buckets


def test_a_reply_says_who_refuses_when_to_retry_and_what_is_left():
    """The words of millrace.limits.v1."""
    buckets = buckets_of(request_for(tenant(), "backend", tokens=4, requests=2))
    decision, kept = decide(buckets, {}, now=10.0)
    reply = reply_of(buckets, decision)
    assert reply.allowed
    assert [(s.limit, s.remaining, s.reset.seconds) for s in reply.states] == [(10, 8, 2), (10, 6, 4)]
    more = buckets_of(request_for(tenant(), "backend", tokens=8))
    reply = reply_of(more, decide(more, kept, now=10.0)[0])
    assert (reply.allowed, reply.refused_by, reply.retry_after.seconds) == (False, "{acme}:tokens", 2)
    never = buckets_of(request_for(tenant(), "backend", tokens=11))
    assert not reply_of(never, decide(never, kept, now=10.0)[0]).HasField("retry_after")


def test_what_is_left_is_told_without_the_clocks_rounding():
    """One of five taken leaves four, although a float of Unix time says 3.9999998."""
    buckets = [Bucket("a", Limit(rate=5, period_s=1, burst=5), 1)]
    decision, _ = decide(buckets, {}, now=1795615273.6993117)
    assert decision.verdicts[0].remaining != 4
    assert reply_of(buckets, decision).states[0].remaining == 4


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"name": ""}, "buckets[0].name is missing"),
        ({"rate": 0}, "buckets[0].rate must be above 0"),
        ({"rate": float("nan")}, "buckets[0].rate must be above 0"),
        ({"burst": 0.5}, "buckets[0].burst must be at least 1"),
        ({"cost": -1}, "buckets[0].cost must not be negative"),
        ({"period": None}, "buckets[0].period must be above 0"),
    ],
)
def test_a_bucket_that_makes_no_sense_is_named(change, rule):
    """The rule names the bucket and the field."""
    fields = {"name": "a", "rate": 1, "burst": 1, "cost": 1, "period": {"seconds": 1}} | change
    assert buckets_of(pb.CheckRequest(buckets=[pb.Bucket(**fields)])) == rule


def test_gateways_on_their_own_admit_together_what_the_limiter_would():
    """Four gateways at a quarter of the rate each: a minute's worth and one burst."""
    limiters = [LocalLimiter(gateways=4) for _ in range(4)]
    request = request_for(tenant(), "backend", tokens=0)
    admitted = sum(
        limiter.check(request, now=1000.0 + step / 10).allowed for step in range(600) for limiter in limiters
    )
    assert admitted == pytest.approx(60 + 10, abs=4)


def test_a_request_above_a_share_of_the_burst_passes_a_full_bucket():
    """While the limiter is away long prompts still pass, one at a time; above the whole burst nothing does."""
    limiter = LocalLimiter(gateways=4)
    assert limiter.check(request_for(tenant(), "k", tokens=9), now=1000.0).allowed
    assert not limiter.check(request_for(tenant(), "k", tokens=9), now=1001.0).allowed
    assert not LocalLimiter(gateways=4).check(request_for(tenant(), "k", tokens=11), now=1000.0).allowed


def test_a_local_limiter_forgets_full_buckets(monkeypatch):
    """Memory is bounded by the buckets in use."""
    monkeypatch.setattr(local_limiter, "_SWEEP_AT", 100)
    limiter = LocalLimiter()
    bucket = pb.Bucket(rate=1000, burst=1, cost=1)
    bucket.period.seconds = 1
    for n in range(1000):
        bucket.name = str(n)
        limiter.check(pb.CheckRequest(buckets=[bucket]), now=1000.0 + n)
    assert len(limiter._tats) <= 101


def test_a_local_limiter_refuses_nonsense():
    """As the service does."""
    with pytest.raises(ValueError, match="name is missing"):
        LocalLimiter().check(pb.CheckRequest(buckets=[pb.Bucket()]), now=1.0)
