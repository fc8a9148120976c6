"""The status of routes, tenants and policies: what is said, from plain facts, and since when."""

import msgspec
import pytest

from millrace.config.v1.config_pb2 import Snapshot
from millrace_operator.core.reasons import Reason
from millrace_operator.core.schema import LimitPolicyStatus, ModelRouteStatus, TenantStatus
from millrace_operator.core.selection import KeyTrouble, Selection, Verdict
from millrace_operator.publishing import Facts, report, status_of

NOW = 1_764_072_190.0
STATUSES = {"ModelRoute": ModelRouteStatus, "Tenant": TenantStatus, "LimitPolicy": LimitPolicyStatus}


def document(kind, name="x", generation=2, **spec):
    return {
        "kind": kind,
        "apiVersion": "millrace.dev/v1alpha1",
        "metadata": {"name": name, "generation": generation},
        "spec": spec,
    }


ROUTE = document("ModelRoute", targets=[{"pool": "a", "weight": 2}, {"pool": "b"}], fallback="c")


def about(this, verdict=None, *, in_force=True, out=True, ready=("a",), troubles=()):
    """Conditions by type of a report, and its fields."""
    identity = this["kind"], this["metadata"]["name"]
    selection = Selection(Snapshot(), {}, {identity: this} if in_force else {}, {}, {"x": troubles} if troubles else {})
    facts = Facts(selection, selection.in_force if out else {}, dict.fromkeys(ready, True), ("x", None, "x"), {"x": 1})
    told = report(facts, this, verdict or Verdict(2, 2))
    return {saying.type: saying for saying in told.sayings} | dict(told.fields), told


@pytest.mark.parametrize(
    ("options", "reason", "message"),
    [
        ({}, Reason.PUBLISHED, "in the snapshot that all services read"),
        ({"ready": ("c",)}, Reason.PUBLISHED, "in the snapshot that all services read"),
        ({"ready": ()}, Reason.NO_WORKERS, "no workers for it: a, b, c"),
        ({"out": False}, Reason.NOT_PUBLISHED, "Redis did not take the snapshot yet; services keep what they have"),
        ({"in_force": False}, Reason.NOT_PUBLISHED, "it is not accepted, and no version before it is in force"),
        (
            {"verdict": Verdict(2, 1, Reason.INVALID, "spec", "is wrong", "so what")},
            Reason.PUBLISHED,
            "generation 1 is in the snapshot that all services read",
        ),
    ],
)
def test_ready_says_whether_services_know_it_and_why_not(options, reason, message):
    """A route also needs a pool that takes tasks; its fallback is one."""
    told, whole = about(ROUTE, **options)
    assert (told["Ready"].reason, told["Ready"].message) == (reason, message)
    assert told["Ready"].holds == (reason is Reason.PUBLISHED)
    assert told["targets"] == "a 66.7 %, b 33.3 %"
    assert whole.good == (reason is Reason.PUBLISHED and not options.get("verdict"))


def test_a_key_that_is_not_found_says_until_when_it_works():
    """By the clock, and in the words of the rule; without troubles all are found."""
    tenant = document("Tenant")
    assert about(tenant)[0]["KeysFound"].holds
    told, _ = about(
        tenant, troubles=(KeyTrouble("k", "there is no Secret `s`", NOW), KeyTrouble("l", "is nonsense", None))
    )
    assert told["KeysFound"].reason is Reason.NOT_FOUND
    assert told["KeysFound"].message == (
        "key `k`: there is no Secret `s`; it works until 12:03:10Z; key `l`: is nonsense; it does not work"
    )


@pytest.mark.parametrize(
    "this", [ROUTE, document("Tenant"), document("LimitPolicy"), document("ModelRoute", targets=1)]
)
def test_a_status_is_what_the_schema_says(this):
    """Each field is one of its kind, in the bounds of the definition."""
    _, told = about(this, in_force=False, verdict=Verdict(2, None, Reason.INVALID, "spec", "is wrong", "so what"))
    written = status_of(told, {}, NOW)
    read = msgspec.convert(written, STATUSES[this["kind"]])
    assert read.observed_generation == 2
    assert [condition.type for condition in read.conditions][:2] == ["Accepted", "Ready"]
    assert written["conditions"][0]["lastTransitionTime"] == "2025-11-25T12:03:10Z"


def test_the_time_of_a_condition_changes_only_with_its_status():
    """Also when nobody can read what stood there."""
    _, told = about(document("LimitPolicy"))
    first = status_of(told, {}, NOW)
    assert status_of(told, first, NOW + 60) == first
    assert first["tenants"] == 2
    odd = {"conditions": [{"type": "Ready", "status": "Perhaps"}]}
    assert status_of(told, odd, NOW) == first
