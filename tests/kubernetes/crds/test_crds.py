"""The custom resources in a real API server: accepted, refused, defaulted, scaled, printed and explained."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from millrace_operator.core.definitions import GROUP, VERSION, definitions
from millrace_operator.core.manifests import Flaw, Manifest, read
from services.cli.stack.software import ROOT
from tests.kubernetes.crds.cases import API_VERSION, CASES, case_id, document
from tests.support.api_server import ApiServer

PLURALS = {crd["spec"]["names"]["kind"]: crd["spec"]["names"]["plural"] for crd in definitions().values()}


@pytest.fixture(scope="module")
def http(cluster: ApiServer) -> Iterator[httpx.Client]:
    """The API without kubectl: many small questions, and answers as they are."""
    with cluster.client() as client:
        yield client


def place(kind, name="", namespace="default"):
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURALS[kind]}/{name}".rstrip("/")


def pool(name, **spec):
    return {
        "apiVersion": API_VERSION,
        "kind": "WorkerPool",
        "metadata": {"name": name},
        "spec": {"model": {"name": "m"}} | spec,
    }


def create(http, manifest):
    made = http.post(place(manifest["kind"]), json=manifest, params={"fieldValidation": "Strict"})
    assert made.status_code == 201, made.text
    return made.json()


def patched(http, kind, name, patch, subresource=""):
    path = f"{place(kind, name)}{subresource}"
    return http.patch(path, content=json.dumps(patch), headers={"Content-Type": "application/merge-patch+json"})


def report(http, kind, name, status):
    """Write a status, as the operator does."""
    written = patched(http, kind, name, {"status": status}, "/status")
    assert written.is_success, written.text


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_each_rule_lets_the_right_manifest_pass_and_refuses_the_wrong_one_by_its_field(http, case):
    """Each rule of each kind, by server-side dry run; the refusal names the field and the way out."""
    strict = {"dryRun": "All", "fieldValidation": "Strict"}
    if "before" in case:
        name = f"before-{CASES.index(case)}"
        made = create(http, document(case, "before", name))

        def ask(which):
            changed = document(case, which, name)
            changed["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
            return http.put(place(case["kind"], name), json=changed, params=strict)
    else:

        def ask(which):
            return http.post(place(case["kind"]), json=document(case, which), params=strict)

    accepted, refused = ask("passes"), ask("fails")
    assert accepted.is_success, accepted.text
    assert refused.status_code in {400, 422}, refused.text
    message = refused.json()["message"]
    assert case["field"] in message, message
    assert case["says"] in message, message


@pytest.mark.parametrize("case", [case for case in CASES if "before" not in case], ids=case_id)
def test_the_api_server_fills_in_the_defaults_that_a_folder_has(http, case):
    """An object from the cluster, with all that was added there, reads like its manifest."""
    manifest = document(case, "passes")
    stored = http.post(place(case["kind"]), json=manifest, params={"dryRun": "All"}).json()
    from_cluster, from_folder = (read(Manifest("a.yaml", 1, one)) for one in (stored, manifest))
    assert not isinstance(from_cluster, Flaw), from_cluster
    assert not isinstance(from_folder, Flaw), from_folder
    assert from_cluster.spec == from_folder.spec


def test_a_model_changes_once_its_pool_is_paused(http):
    """First the pause, then the model, in whichever mode it goes on."""
    create(http, pool("swap"))
    assert patched(http, "WorkerPool", "swap", {"spec": {"model": {"name": "n"}}}).status_code == 422
    assert patched(http, "WorkerPool", "swap", {"spec": {"scaling": {"mode": "Paused"}}}).is_success
    change = {"spec": {"model": {"name": "n"}, "engine": {"kind": "Simulator"}, "scaling": {"mode": "Auto"}}}
    assert patched(http, "WorkerPool", "swap", change).is_success
    assert patched(http, "WorkerPool", "swap", {"spec": {"model": {"name": "m"}}}).status_code == 422


@pytest.mark.parametrize("folder", ["deploy/samples", "deploy/local/manifests"])
def test_the_manifests_of_the_repository_are_accepted(cluster, folder):
    """The same files serve a folder and a cluster."""
    said = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(ROOT / folder))
    assert said.count("created (server dry run)") == len(
        [one for path in Path(ROOT / folder).glob("*.yaml") for one in yaml.safe_load_all(path.read_text())]
    )


def test_defaults_appear_in_what_is_stored(http):
    """A manifest with a model name is a whole pool."""
    spec = create(http, pool("defaults"))["spec"]
    assert (spec["replicas"], spec["concurrency"], spec["slo"]) == (1, {"slots": 8}, {"queueWaitSeconds": 5})
    assert spec["scaling"]["hold"] == {"mode": "Learned", "minSeconds": 60, "maxSeconds": 1200}
    assert spec["drain"]["deadlineSeconds"] + 30 == spec["template"]["terminationGracePeriodSeconds"]
    assert spec["engine"]["kind"] == "Triton"
    assert "accelerator" not in spec
    half = create(http, pool("half", scaling={"maxReplicas": 3}, engine={"triton": {}}))["spec"]
    assert half["scaling"]["headroom"] == 0.75
    assert half["engine"]["triton"]["modelRepository"] == {"path": "/models"}


def test_null_is_absent(http):
    """Templates leave nulls behind; they mean the default, or nothing."""
    spec = create(http, pool("nulls", accelerator=None, scaling=None, engine={"kind": "Simulator", "triton": None}))[
        "spec"
    ]
    assert spec["scaling"]["maxReplicas"] == 10
    assert "accelerator" not in spec
    report(http, "WorkerPool", "nulls", {"replicas": 0, "queue": None, "lastDecision": None})


def test_kubectl_refuses_a_field_that_does_not_exist_by_name(cluster):
    """A typing error never passes as a default."""
    wrong = pool("typo", scaling={"maxReplica": 3})
    said = cluster.kubectl("apply", "--validate=strict", "-f", "-", manifest=wrong, fails=True)
    assert 'unknown field "spec.scaling.maxReplica"' in said


def test_kubectl_scales_a_pool_up_to_its_maximum(cluster, http):
    """The scale subresource reads and writes spec.replicas; above the maximum it says what to raise."""
    create(http, pool("scaled", scaling={"maxReplicas": 4}))
    cluster.kubectl("scale", "wp/scaled", "--replicas=3")
    assert cluster.get("wp", "scaled")["spec"]["replicas"] == 3
    refused = cluster.kubectl("scale", "wp/scaled", "--replicas=5", fails=True)
    assert "replicas is above scaling.maxReplicas: order fewer or raise scaling.maxReplicas" in refused
    status = {"replicas": 2, "selector": "millrace.dev/pool=scaled"}
    report(http, "WorkerPool", "scaled", status)
    scale = http.get(f"{place('WorkerPool', 'scaled')}/scale").json()
    assert (scale["spec"]["replicas"], scale["status"]) == (3, status)


def test_a_maximum_below_the_present_number_is_accepted(http):
    """The operator drains down to it; only raising is refused."""
    create(http, pool("shrinks", replicas=8))
    assert patched(http, "WorkerPool", "shrinks", {"spec": {"scaling": {"maxReplicas": 4}}}).is_success
    assert patched(http, "WorkerPool", "shrinks", {"spec": {"replicas": 6}}).is_success
    assert patched(http, "WorkerPool", "shrinks", {"spec": {"replicas": 7}}).status_code == 422


def test_status_is_written_through_its_subresource_alone(http):
    """Whoever may change the spec does not speak for the operator, and the other way round."""
    made = create(http, pool("spoken") | {"status": {"replicas": 9}})
    assert "status" not in made
    both = {"spec": {"replicas": 5}, "status": {"replicas": 2, "queue": {"waitingWorkSeconds": 12.5}}}
    after = patched(http, "WorkerPool", "spoken", both, "/status").json()
    assert (after["spec"]["replicas"], after["status"]["replicas"]) == (1, 2)
    wrong = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    refused = patched(http, "WorkerPool", "spoken", wrong, "/status")
    assert "status.conditions[0].reason: Required value" in refused.json()["message"]


def test_kubectl_waits_for_a_condition(cluster, http):
    """`kubectl wait --for=condition=Ready` works on every kind; it asks for the condition's own generation."""
    create(http, pool("waited"))
    report(http, "WorkerPool", "waited", {"conditions": [condition("Ready", "Serving")]})
    assert "condition met" in cluster.kubectl("wait", "--for=condition=Ready", "--timeout=5s", "wp/waited")


def condition(kind, reason):
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("wp", "Workers of one model on one kind of accelerator. The operator runs a Deployment for it"),
        ("wp.spec.replicas", "kubectl scale sets it. Never above spec.scaling.maxReplicas. From 0 to 1000; default 1."),
        ("wp.spec.scaling.mode", "Paused: the operator changes nothing"),
        ("wp.spec.drain.deadlineSeconds", "continues on another worker without losing text"),
        ("wp.spec.engine.triton.modelRepository", "Where the server finds its models."),
        ("wp.spec.template.tolerations.operator", "How the taint's value is compared. Default Equal."),
        ("wp.status.lastDecision.message", "Why, in one sentence with its numbers"),
        ("mr.spec.targets.weight", "divided by the sum of all weights"),
        ("tn.spec.keys.secretRef", "Where the key, or its SHA-256, stands in a Secret."),
        ("tn.spec.classes", "At most 4 entries; default standard, batch, background."),
        ("lp.spec.perKey.requests.burst", "the size of the bucket"),
        ("lp.status.conditions.reason", "in one word that programs may compare"),
    ],
)
def test_kubectl_explain_reads_like_a_manual(cluster, http, path, told):
    """What it means, its unit, its bounds and its default."""
    assert told in " ".join(cluster.kubectl("explain", path).split())


def test_kubectl_get_tells_in_one_line_how_a_pool_is(cluster, http):
    """Numbers of workers, backlog and the reason of Ready; rate and cold start with -o wide."""
    create(http, pool("printed", model={"name": "llama"}))
    status = {
        "desiredReplicas": 6,
        "readyReplicas": 3,
        "startingReplicas": 2,
        "drainingReplicas": 1,
        "queue": {"waitingWorkSeconds": 5400},
        "rates": {"arrivalPerSecond": 7.5},
        "coldStart": {"p80Seconds": 42},
        "conditions": [condition("Ready", "Serving")],
    }
    report(http, "WorkerPool", "printed", status)
    head, row = [line.split() for line in cluster.kubectl("get", "wp", "printed").splitlines()]
    assert head == ["NAME", "MODEL", "DESIRED", "READY", "START", "DRAIN", "BACKLOG(S)", "STATUS", "AGE"]
    assert row[:-1] == ["printed", "llama", "6", "3", "2", "1", "5400", "Serving"]
    head, row = [line.split() for line in cluster.kubectl("get", "wp", "printed", "-o", "wide").splitlines()]
    assert (head[-2:], row[-2:]) == (["RATE", "COLD(S)"], ["7.5", "42"])


def test_kubectl_get_millrace_lists_everything(cluster, http):
    """One category for all kinds, a short name for each."""
    create(http, pool("listed"))
    rest = {"ModelRoute": {"targets": [{"pool": "listed"}]}, "Tenant": {"weight": 2}, "LimitPolicy": {}}
    for kind, spec in rest.items():
        create(http, {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "listed"}, "spec": spec})
    status = {"model": "listed", "targets": "listed 100 %", "conditions": [condition("Ready", "Published")]}
    report(http, "ModelRoute", "listed", status)
    listed = cluster.kubectl("get", "millrace", "-o", "name").split()
    assert {f"{kind.lower()}.{GROUP}/listed" for kind in PLURALS} <= set(listed)
    assert cluster.kubectl("get", "mr", "listed").splitlines()[0].split() == [
        "NAME",
        "MODEL",
        "TARGETS",
        "READY",
        "AGE",
    ]
    assert "listed 100 %   True" in cluster.kubectl("get", "mr", "listed")
    assert cluster.kubectl("get", "tn", "listed").splitlines()[0].split() == [
        "NAME", "KEYS", "WEIGHT", "POLICY", "READY", "AGE"
    ]  # fmt: skip
    assert cluster.kubectl("get", "lp", "listed").splitlines()[0].split() == ["NAME", "TENANTS", "READY", "AGE"]


def test_two_appliers_share_the_targets_of_a_route_by_pool(cluster, http):
    """A canary's weight may be another's to write: entries are merged by their key, not replaced as a list."""
    route = {"apiVersion": API_VERSION, "kind": "ModelRoute", "metadata": {"name": "shared"}}
    for manager, target in (("base", {"pool": "a", "weight": 9}), ("canary", {"pool": "b", "weight": 1})):
        manifest = route | {"spec": {"targets": [target]}}
        cluster.kubectl("apply", "--server-side", f"--field-manager={manager}", "-f", "-", manifest=manifest)
    assert cluster.get("mr", "shared")["spec"]["targets"] == [{"pool": "a", "weight": 9}, {"pool": "b", "weight": 1}]
