"""One wrong resource never holds up the others, and each is told what became of it."""

import hashlib
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.config.v1.config_pb2 import Snapshot
from millrace_operator.core.manifests import Manifest
from millrace_operator.core.reasons import Reason
from millrace_operator.core.selection import KEEP_S, Known, Place, identity_of, remember, secrets_of, select
from millrace_operator.core.snapshot import compile_snapshot

GROUP = "millrace.dev/v1alpha1"
KEY = "mr_" + "a2" * 16
OTHER = "mr_" + "b3" * 16


def sha256(key):
    return hashlib.sha256(key.encode()).digest()


def document(kind, name, generation=1, created="2026-01-01T00:00:00Z", **rest):
    metadata = {"name": name, "generation": generation, "creationTimestamp": created}
    return {"apiVersion": "v1" if kind == "Secret" else GROUP, "kind": kind, "metadata": metadata, **rest}


def pool(name="tiny", generation=1, **spec):
    return document("WorkerPool", name, generation, spec={"model": {"name": "tiny"}, **spec})


def route(name="tiny", generation=1, to="tiny", created="2026-01-01T00:00:00Z", **spec):
    return document("ModelRoute", name, generation, created, spec={"targets": [{"pool": to}], **spec})


def tenant(name="acme", generation=1, created="2026-01-01T00:00:00Z", **spec):
    return document("Tenant", name, generation, created, spec=spec)


def policy(name="basic", generation=1, rate=60):
    return document("LimitPolicy", name, generation, spec={"perKey": {"requests": {"rate": rate}}})


def secret(name="acme", key=KEY):
    return document("Secret", name, stringData={"key": key})


def referring(*names, **spec):
    """A tenant with keys in Secrets."""
    return tenant(keys=[{"name": name, "secretRef": {"name": name}} for name in names], **spec)


def manifests(documents):
    return [Manifest("all.yaml", position, one) for position, one in enumerate(documents, start=1)]


def chosen(documents, before=None, known=None):
    return select(manifests(documents), before.accepted if before else {}, known)


def known_of(documents, known=None, published=None, at=0.0):
    tenants = [one for one in documents if one["kind"] == "Tenant"]
    secrets = {one["metadata"]["name"]: one for one in documents if one["kind"] == "Secret"}
    return remember(known or {}, published or {}, tenants, secrets, at)


def test_a_good_set_is_compiled_as_it_is():
    """Every resource is accepted with its generation."""
    good = [pool(), route(), policy(generation=4), secret(), referring("acme", limitPolicy="basic")]
    selection = chosen(good)
    assert selection.snapshot == compile_snapshot(manifests(good))
    assert all(verdict.accepted for verdict in selection.verdicts.values())
    assert selection.verdicts["LimitPolicy", "basic"].in_force == 4
    assert ("Secret", "acme") not in selection.verdicts


def test_a_wrong_tenant_holds_up_nobody_else():
    """It is left out, and told which field breaks which rule."""
    selection = chosen([pool(), route(), tenant("wrong", limitPolicy="gone"), tenant("right")])
    assert [one.name for one in selection.snapshot.tenants] == ["right"]
    verdict = selection.verdicts["Tenant", "wrong"]
    assert verdict.reason is Reason.NOT_FOUND
    assert verdict.in_force is None
    assert verdict.message == "spec.limitPolicy: there is no LimitPolicy `gone`; it is not in force"


def test_the_version_before_stays_in_force_and_is_named():
    """Also when the next version is wrong as well; a right one takes its place."""
    first = chosen([tenant(generation=3, weight=2.0)])
    wrong = chosen([tenant(generation=4, limitPolicy="gone")], first)
    assert wrong.snapshot.tenants[0].weight == 2
    verdict = wrong.verdicts["Tenant", "acme"]
    assert (verdict.generation, verdict.in_force) == (4, 3)
    assert verdict.message.endswith("; the version before (generation 3) stays in force")
    still = chosen([tenant(generation=5, weight=-1.0)], wrong)
    assert (still.snapshot.tenants[0].weight, still.verdicts["Tenant", "acme"].in_force) == (2, 3)
    assert chosen([tenant(generation=6, weight=5.0)], still).snapshot.tenants[0].weight == 5


def test_a_route_without_its_pool_never_gets_out():
    """Not even its version before."""
    first = chosen([pool(), route()])
    selection = chosen([route()], first)
    assert not selection.snapshot.routes
    assert selection.verdicts["ModelRoute", "tiny"].message.endswith("; it is not in force")
    assert chosen([pool(), route()], selection).snapshot == first.snapshot


def test_a_deleted_tenant_is_out_at_once():
    """What is not there any more has no version before."""
    first = chosen([tenant()])
    gone = chosen([], first)
    assert not gone.snapshot.tenants
    assert not gone.accepted


def test_a_tenant_outlives_a_model_that_it_names():
    """It goes on with the others; with none left it is out, since no model would mean every model."""
    both = [pool(), route("a"), route("b"), tenant(models=["a", "b"], generation=2)]
    first = chosen(both)
    one = chosen([both[0], both[1], both[3]], first)
    assert list(one.snapshot.tenants[0].models) == ["a"]
    assert one.verdicts["Tenant", "acme"].message == (
        "spec.models[1]: there is no ModelRoute for `b`; it is in force, without the models and keys that are not there"
    )
    assert not chosen([both[0], both[3]], one).snapshot.tenants
    assert list(chosen(both, one).snapshot.tenants[0].models) == ["a", "b"]


def test_what_is_in_force_keeps_its_model_name():
    """Neither a new route nor an old one that was changed takes it; between new ones the older has it."""
    first = chosen([pool(), route("b", created="2026-02-02T00:00:00Z"), route("c", created="2026-01-01T00:00:00Z")])
    old_changed = route("c", 2, model="b", created="2026-01-01T00:00:00Z")
    new = route("a", model="b", created="2026-03-03T00:00:00Z")
    selection = chosen([pool(), route("b", created="2026-02-02T00:00:00Z"), old_changed, new], first)
    assert [one.model for one in selection.snapshot.routes] == ["b", "c"]
    assert selection.verdicts["ModelRoute", "b"].accepted
    assert selection.verdicts["ModelRoute", "a"].reason is Reason.CONFLICT
    assert selection.verdicts["ModelRoute", "c"].in_force == 1
    between_new_ones = chosen([pool(), new, old_changed]).verdicts
    assert between_new_ones["ModelRoute", "c"].accepted
    assert not between_new_ones["ModelRoute", "a"].accepted


def test_what_follows_from_a_flaw_is_no_flaw_itself():
    """A tenant with the key of one that is out for another reason is in."""
    keys = [{"name": "k", "sha256": "ab" * 32}]
    selection = chosen(
        [tenant("a", keys=keys, limitPolicy="gone"), tenant("b", keys=keys, created="2026-02-02T00:00:00Z")]
    )
    assert [one.name for one in selection.snapshot.tenants] == ["b"]


def test_a_key_works_on_when_its_secret_goes():
    """For an hour, and the tenant says until when; then only this key is out."""
    there = [secret("k1"), secret("k2", OTHER), referring("k1", "k2")]
    known = known_of(there)
    first = chosen(there, known=known)
    rest = there[1:]
    known = known_of(rest, known, at=100.0)
    held = chosen(rest, first, known)
    assert held.snapshot == first.snapshot
    assert held.keys["acme"][0].until == 100.0 + KEEP_S
    assert held.verdicts["Tenant", "acme"].reason is Reason.NOT_FOUND
    assert held.verdicts["Tenant", "acme"].message.startswith(
        "spec.keys[0].secretRef: there is no Secret `k1`; it stays"
    )
    known = known_of(rest, known, at=99.0 + KEEP_S)
    assert chosen(rest, held, known).snapshot == first.snapshot
    known = known_of(rest, known, at=100.0 + KEEP_S)
    after = chosen(rest, held, known)
    assert [key.name for key in after.snapshot.tenants[0].keys] == ["k2"]
    assert after.keys["acme"][0].until is None


@pytest.mark.parametrize("broken", [secret(key="nonsense"), document("Secret", "acme", data={"key": "%%%"}), None])
def test_a_key_works_on_when_its_secret_says_nonsense(broken):
    """A changed one counts at once, and so does one that comes back."""
    there = [secret(), referring("acme")]
    known = known_of(there)
    rest = [*([broken] if broken else []), referring("acme")]
    known = known_of(rest, known)
    assert chosen(rest, known=known).snapshot.tenants[0].keys[0].sha256 == sha256(KEY)
    changed = [secret(key=OTHER), referring("acme")]
    known = known_of(changed, known)
    selection = chosen(changed, known=known)
    assert selection.snapshot.tenants[0].keys[0].sha256 == sha256(OTHER)
    assert not selection.keys
    assert set(known.values()) == {Known(sha256(OTHER))}


def test_a_restarted_operator_goes_on_with_the_hashes_in_the_snapshot():
    """By tenant and name of the key; the hour begins with its start. Others get none."""
    published = {("acme", "k1"): sha256(KEY), ("gone", "k1"): sha256(OTHER)}
    known = known_of([referring("k1", "k2")], published=published, at=50.0)
    assert known == {Place("acme", "k1", "k1", ""): Known(sha256(KEY), 50.0 + KEEP_S)}


def test_a_key_that_is_taken_out_of_its_tenant_ends_at_once():
    """So does that of a deleted tenant; neither is known afterwards."""
    there = [secret("k1"), secret("k2", OTHER), referring("k1", "k2")]
    known = known_of(there)
    fewer = [*there[:2], referring("k2")]
    assert [place.key for place in known_of(fewer, known)] == ["k2"]
    assert [key.name for key in chosen(fewer, chosen(there)).snapshot.tenants[0].keys] == ["k2"]
    assert not known_of(there[:2], known)


def test_a_key_that_moves_to_a_secret_that_is_not_there_stays_where_it_was():
    """The version before counts, not a hash of another place."""
    first = chosen([secret(), referring("acme")])
    known = known_of([secret(), referring("acme")])
    moved = tenant(generation=2, keys=[{"name": "acme", "secretRef": {"name": "new"}}])
    selection = chosen([secret(), moved], first, known)
    assert selection.verdicts["Tenant", "acme"].in_force == 1
    assert selection.snapshot == first.snapshot
    assert secrets_of([moved]) == {"new"}


NAMES = st.sampled_from(["a", "b", "c"])
POOLS = st.builds(
    pool, NAMES, st.integers(1, 3), model=st.sampled_from([{"name": "x"}, {"name": "x", "contextTokens": 64}, {}])
)
ROUTES = st.builds(
    route, NAMES, st.integers(1, 3), to=NAMES, model=NAMES, fallback=NAMES, created=st.sampled_from(["1", "2"])
)  # fmt: skip
KEYS = st.lists(
    st.one_of(
        st.builds(lambda name, ref: {"name": name, "secretRef": {"name": ref}}, NAMES, NAMES),
        st.builds(lambda name, digit: {"name": name, "sha256": digit * 64}, NAMES, st.sampled_from(["0", "1", "x"])),
    ),
    max_size=3,
)
TENANTS = st.builds(
    tenant, NAMES, st.integers(1, 3), keys=KEYS, models=st.lists(NAMES, max_size=2), created=st.sampled_from(["1", "2"]),
    limitPolicy=NAMES,
)  # fmt: skip
POLICIES = st.builds(policy, NAMES, st.integers(1, 2), rate=st.sampled_from([0, 1, 2]))
SECRETS = st.builds(secret, NAMES, key=st.sampled_from([KEY, OTHER, "nonsense"]))
SETS = st.lists(
    st.one_of(POOLS, ROUTES, TENANTS, POLICIES, SECRETS), max_size=14, unique_by=identity_of
)  # fmt: skip
GOOD = st.just(
    [pool("a"), pool("b"), route("a", to="a", model="a"), policy("a"), secret("a"), referring("a", limitPolicy="a")]
)


@settings(max_examples=150)
@given(st.lists(st.one_of(SETS, GOOD), min_size=1, max_size=4), st.booleans())
def test_whatever_stands_there_the_best_of_it_is_in_force(sets, remembers):
    """It compiles, has nothing that is not there, is the whole set when that is good, and does not depend on order."""
    before, known = {}, {}
    for at, documents in enumerate(sets):
        good = compile_snapshot(manifests(documents))
        if remembers:
            known = known_of(documents, known, at=float(at))
        untouched = deepcopy(documents)
        selection = select(manifests(documents), before, known)
        assert documents == untouched
        assert isinstance(selection.snapshot, Snapshot)
        assert isinstance(
            compile_snapshot(manifests([*selection.in_force.values(), *_of(documents, "Secret")])), Snapshot
        )
        there = {identity_of(one) for one in documents}
        assert selection.in_force.keys() <= there
        assert selection.verdicts.keys() == {one for one in there if one[0] != "Secret"}
        if isinstance(good, Snapshot):
            assert selection.snapshot == good
            assert all(verdict.accepted for verdict in selection.verdicts.values())
        pools = {one.name for one in selection.snapshot.pools}
        assert all(target.pool in pools for one in selection.snapshot.routes for target in one.targets)
        for identity, verdict in selection.verdicts.items():
            assert (verdict.in_force is not None) == (identity in selection.in_force)
        assert select(manifests(documents[::-1]), before, known).snapshot == selection.snapshot
        before = selection.accepted


def _of(documents, kind):
    return [one for one in documents if one["kind"] == kind]
