"""Manifests become one snapshot, or a list of what is wrong, each flaw with its place."""

import hashlib
from pathlib import Path

import pytest

from millrace.config.v1.config_pb2 import Snapshot
from millrace.task.v1.task_pb2 import PRIORITY_CLASS_CRITICAL, PRIORITY_CLASS_STANDARD
from millrace_operator.core.manifests import Manifest
from millrace_operator.core.snapshot import compile_snapshot
from millrace_operator.folders import read_manifests

KEY = "mr_" + "a2" * 16
GROUP = "millrace.dev/v1alpha1"


def document(kind, name, /, api_version=GROUP, **rest):
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **rest}


def good():
    return [
        document("WorkerPool", "tiny", spec={"model": {"name": "tiny"}}),
        document("WorkerPool", "spare", spec={"model": {"name": "tiny", "revision": "2"}, "concurrency": {"slots": 4}}),
        document("ModelRoute", "tiny", spec={"targets": [{"pool": "tiny", "weight": 9}], "fallback": "spare"}),
        document("LimitPolicy", "basic", spec={"perKey": {"requests": {"rate": 600}}}),
        document("Secret", "acme", api_version="v1", stringData={"key": KEY}),
        document(
            "Tenant",
            "acme",
            spec={
                "keys": [{"name": "k1", "secretRef": {"name": "acme"}}],
                "limitPolicy": "basic",
                "classes": ["critical"],
            },
        ),
    ]


def compiled(documents, leaving=()):
    return compile_snapshot([Manifest("all.yaml", i, d) for i, d in enumerate(documents, start=1)], leaving)


def flaws(documents):
    found = compiled(documents)
    assert isinstance(found, list)
    return [str(flaw) for flaw in found]


def test_a_snapshot_holds_what_the_manifests_say_and_every_default():
    """Pools, routes and tenants are resolved; limits are copied into their tenants; keys are hashes."""
    snapshot = compiled(good())
    assert isinstance(snapshot, Snapshot)
    spare, tiny = snapshot.pools
    assert (spare.name, spare.slots, spare.model_revision) == ("spare", 4, "2")
    assert (tiny.slots, tiny.max_queue_s, tiny.max_attempts, tiny.context_tokens) == (8, 30.0, 3, 2048)
    (route,) = snapshot.routes
    assert (route.model, route.fallback, route.targets[0].weight, route.default_max_tokens) == ("tiny", "spare", 9, 256)
    (tenant,) = snapshot.tenants
    assert tenant.keys[0].sha256 == hashlib.sha256(KEY.encode()).digest()
    assert (tenant.limits.key_requests.rate, tenant.limits.key_requests.burst) == (600, 600)
    assert not tenant.limits.HasField("tenant_tokens")
    assert list(tenant.classes) == [PRIORITY_CLASS_CRITICAL]
    assert tenant.retention.seconds == 300
    assert KEY.encode() not in snapshot.SerializeToString()


def test_equal_manifests_give_an_equal_version_in_any_order():
    """The version is a hash of the content; files and documents may be moved."""
    one, other = compiled(good()), compiled(good()[::-1])
    assert one.version == other.version
    changed = good()
    changed[0]["spec"]["queue"] = {"maxSeconds": 31}
    assert compiled(changed).version != one.version


def test_classes_default_to_all_but_critical():
    """Critical is contracted, never given by omission."""
    documents = good()
    del documents[-1]["spec"]["classes"]
    assert PRIORITY_CLASS_CRITICAL not in compiled(documents).tenants[0].classes
    assert PRIORITY_CLASS_STANDARD in compiled(documents).tenants[0].classes


def test_a_key_may_be_given_as_its_hash_in_a_secret_or_in_the_spec():
    """Who keeps the key elsewhere shows only the hash; Kubernetes' base64 `data` is read as well."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    documents = good()
    documents[4]["stringData"] = {"sha256": digest}
    by_secret = compiled(documents)
    documents[4].pop("stringData")
    documents[4]["data"] = {"key": "bXJfYTJhMmEyYTJhMmEyYTJhMmEyYTJhMmEyYTJhMmEyYTI="}
    by_data = compiled(documents)
    documents[5]["spec"]["keys"] = [{"name": "k1", "sha256": digest}]
    in_spec = compiled(documents)
    assert by_secret.version == by_data.version == in_spec.version == compiled(good()).version


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda d: d[0]["spec"].update(colour="red"), "all.yaml#1 WorkerPool/tiny spec.colour: unknown field"),
        (lambda d: d[0]["spec"].pop("model"), "all.yaml#1 WorkerPool/tiny spec.model: is required"),
        (lambda d: d[0].pop("spec"), "all.yaml#1 WorkerPool/tiny spec: is required"),
        (lambda d: d[0].update(kind="WorkerPol"), "all.yaml#1 WorkerPol/tiny kind: 'WorkerPol' is not one of"),
        (lambda d: d[0].update(apiVersion="v1"), "all.yaml#1 WorkerPool/tiny apiVersion: Invalid enum value 'v1'"),
        (lambda d: d[0]["metadata"].update(name="Tiny!"), "all.yaml#1 WorkerPool/Tiny! metadata.name: Expected `str`"),
        (lambda d: d.__setitem__(0, ["x"]), "all.yaml#1 ? (document): is not an object"),
        (lambda d: d[1]["spec"]["concurrency"].update(slots=0), "WorkerPool/spare spec.concurrency.slots: Expected `int` >= 1"),
        (lambda d: d[1]["spec"]["concurrency"].update(slots="4"), "spec.concurrency.slots: Expected `int`, got `str`"),
        (lambda d: d.append(d[0]), "all.yaml#7 WorkerPool/tiny metadata.name: is taken"),
        (lambda d: d[2]["spec"]["targets"][0].update(pool="gone"), "spec.targets[0].pool: there is no WorkerPool `gone`"),
        (lambda d: d[2]["spec"].update(fallback="gone"), "ModelRoute/tiny spec.fallback: there is no WorkerPool `gone`"),
        (lambda d: d[2]["spec"].update(fallback="tiny"), "ModelRoute/tiny spec.fallback: is the only target"),
        (lambda d: d[2]["spec"].update(targets=[]), "ModelRoute/tiny spec.targets: Expected `array` of length >= 1"),
        (lambda d: d[2]["spec"].update(tokens={"max": 2048}), "spec.tokens.max: leaves no room for a prompt in WorkerPool `tiny`"),
        (lambda d: d[2]["spec"].update(tokens={"default": 9, "max": 8}), "spec.tokens.default: is above spec.tokens.max"),
        (lambda d: d[2]["spec"]["targets"].append({"pool": "tiny"}), "spec.targets: names a pool twice"),
        (lambda d: d.append(document("ModelRoute", "b", spec={"model": "tiny", "targets": [{"pool": "spare"}]})), "ModelRoute/b spec.model: `tiny` has a route"),
        (lambda d: d[3]["spec"]["perKey"]["requests"].update(rate=0), "LimitPolicy/basic spec.perKey.requests.rate: Expected `float` > 0"),
        (lambda d: d[4].update(stringData={"key": "secret"}), "Tenant/acme spec.keys[0].secretRef: names no entry that is an API key"),
        (lambda d: d[4].update(stringData={}), "Tenant/acme spec.keys[0].secretRef: names no entry that is an API key"),
        (lambda d: d.pop(4), "Tenant/acme spec.keys[0].secretRef.name: there is no Secret `acme`"),
        (lambda d: d[5]["spec"]["keys"][0].pop("secretRef"), "Tenant/acme spec.keys[0]: needs either secretRef or sha256"),
        (lambda d: d[5]["spec"].update(limitPolicy="gone"), "Tenant/acme spec.limitPolicy: there is no LimitPolicy `gone`"),
        (lambda d: d[5]["spec"].update(models=["gpt"]), "Tenant/acme spec.models[0]: there is no ModelRoute for `gpt`"),
        (lambda d: d[5]["spec"].update(classes=["urgent"]), "Tenant/acme spec.classes[0]: Invalid enum value 'urgent'"),
        (lambda d: d.append(document("Tenant", "b", spec={"keys": d[5]["spec"]["keys"]})), "Tenant/b spec.keys[0]: is the same key as acme/k1"),
    ],
)  # fmt: skip
def test_a_flaw_names_file_kind_field_and_rule(change, flaw):
    """Whoever wrote the manifest finds the place without reading code."""
    documents = good()
    change(documents)
    found = flaws(documents)
    assert any(flaw in one for one in found), found


def test_flaws_of_several_manifests_are_told_together():
    """One look at the list is enough."""
    documents = good()
    documents[0]["spec"]["colour"] = "red"
    documents[3]["spec"]["rules"] = []
    assert len(flaws(documents)) == 2


def test_the_manifests_of_the_local_stack_compile():
    """With the Secret that the stack makes at its first start."""
    manifests, unreadable = read_manifests([Path("deploy/local/manifests")])
    secret = document("Secret", "local", api_version="v1", stringData={"key": KEY})
    snapshot = compile_snapshot([*manifests, Manifest("secret.yaml", 1, secret)])
    assert not unreadable
    assert isinstance(snapshot, Snapshot), snapshot
    assert [pool.name for pool in snapshot.pools] == ["sim", "tiny"]
    assert [route.model for route in snapshot.routes] == ["sim", "tiny"]


def test_the_samples_compile():
    """What a new user copies is right."""
    manifests, unreadable = read_manifests([Path("deploy/samples")])
    snapshot = compile_snapshot(manifests)
    assert not unreadable
    assert isinstance(snapshot, Snapshot), snapshot


@pytest.mark.parametrize(
    ("leaving", "targets", "fallback"),
    [
        ({"spare"}, [("tiny", 9)], ""),
        ({"tiny"}, [("spare", 1)], ""),
        ({"tiny", "spare"}, None, None),
        ({"somebody"}, [("tiny", 9)], "spare"),
    ],
)
def test_no_route_leads_to_a_pool_that_leaves(leaving, targets, fallback):
    """The fallback takes what has no other pool, and a route with none is no route. The pools stay: they work off what they have."""
    snapshot = compiled(good(), leaving)
    assert [pool.name for pool in snapshot.pools] == ["spare", "tiny"]
    routes = [([(to.pool, to.weight) for to in route.targets], route.fallback) for route in snapshot.routes]
    assert routes == ([] if targets is None else [(targets, fallback)])
    assert [tenant.name for tenant in snapshot.tenants] == ["acme"]


def test_a_tenant_of_a_model_whose_pools_leave_stays():
    """What it may use comes back with another pool."""
    documents = good()
    documents[-1]["spec"]["models"] = ["tiny"]
    (tenant,) = compiled(documents, {"tiny", "spare"}).tenants
    assert list(tenant.models) == ["tiny"]
