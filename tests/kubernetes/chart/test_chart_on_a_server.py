"""The chart against a real API server: installed, upgraded, taken away; what each account may do then.

Nobody acts on the objects, so nothing runs; but each is stored, validated and defaulted as in any cluster, and pods are
held to the restricted profile.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from millrace_operator.adapters.kube_cluster import WATCHED, KubeCluster
from millrace_operator.adapters.watching import watch
from millrace_operator.core.desired import Installation, objects
from millrace_operator.core.schema import WorkerPool
from millrace_operator.leadership import LEASE, Leadership
from millrace_operator.ports import ApiError
from millrace_operator.samples import Samples
from millrace_operator.store import Store
from tests.kubernetes.chart.rendering import CHART, COMPONENTS, DEV, SWITCHES, helm, pod_of, render
from tests.support.api_server import ApiServer, running
from tests.support.waiting import eventually

# Kinds of operators that this API server does not have.
FOREIGN = {"PodMonitor", "PrometheusRule", "HTTPRoute", "GRPCRoute"}
# What anybody who is known may do in every cluster.
ANYBODYS = {"selfsubjectreviews.authentication.k8s.io", "selfsubjectaccessreviews.authorization.k8s.io",
            "selfsubjectrulesreviews.authorization.k8s.io"}  # fmt: skip


def run_helm(server: ApiServer, command: str, *arguments: str, values: dict[str, Any] | None = None) -> str:
    """Helm on this API server and on no other."""
    chart = [str(CHART), "-f", "-"] if values is not None else []
    return helm(
        command, "millrace", *chart, *arguments, "--kubeconfig", str(server.kubeconfig), values=values,
        environment={"HELM_CACHE_HOME": str(server.folder / "helm"), "HELM_CONFIG_HOME": str(server.folder / "helm")},
    )  # fmt: skip


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One of the chart's own: a release owns the definitions of its whole cluster, and installs into an empty one."""
    with running(tmp_path_factory.mktemp("chart")) as server:
        yield server


@pytest.fixture(scope="module")
def notes(api_server: ApiServer) -> str:
    """What is said at the install of the development profile, in the namespace `trial`; it stays installed."""
    api_server.restricted_namespace("trial")
    said = run_helm(api_server, "install", "--namespace", "trial", values=DEV)
    deadline = time.monotonic() + 20
    with api_server.client() as client:
        for kind in ("workerpools", "modelroutes", "tenants", "limitpolicies"):
            while client.get(f"/apis/millrace.dev/v1alpha1/namespaces/trial/{kind}").is_error:
                assert time.monotonic() < deadline, f"{kind} are not served"
                time.sleep(0.1)
    return said


def secret(server: ApiServer, name: str, key: str) -> str:
    return server.get("secret", name, "--namespace", "trial")["data"][key]  # type: ignore[no-any-return]


@pytest.mark.parametrize("switches", [["default"], ["dev"], list(SWITCHES)], ids=["default", "dev", "all"])
def test_a_server_takes_every_render(api_server, switches):
    """A server-side dry run accepts each object, those that differ between the switches as well, and warns of none."""
    api_server.restricted_namespace("inference")
    made = [each for switch in switches for each in render(SWITCHES[switch]) if each["kind"] not in FOREIGN]
    distinct = [each for place, each in enumerate(made) if each not in made[:place] and each["kind"] != "Secret"]
    manifest = {"apiVersion": "v1", "kind": "List", "items": distinct}
    said = api_server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", manifest=manifest)
    assert said.count("(server dry run)") == len(distinct)
    assert "Warning" not in said


@pytest.mark.parametrize("component", [*COMPONENTS, "dev-kafka", "dev-redis"])
def test_pods_pass_where_the_restricted_profile_is_enforced(api_server, notes, component):
    """A pod made of each template is let in."""
    kind = "statefulset" if component.startswith("dev-") else "deployment"
    made = api_server.get(kind, f"millrace-{component}", "--namespace", "trial")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"one-{component}"}, "spec": pod_of(made)}
    assert "created (server dry run)" in api_server.kubectl(
        "create", "--dry-run=server", "--namespace", "trial", "-f", "-", manifest=pod
    )


def test_a_pod_without_the_rules_would_not_pass(api_server, notes):
    """The profile is enforced here: the same pod with a root user is refused."""
    spec = pod_of(api_server.get("deployment", "millrace-gateway", "--namespace", "trial"))
    del spec["containers"][0]["securityContext"]["capabilities"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose"}, "spec": spec}
    said = api_server.kubectl("create", "--dry-run=server", "--namespace", "trial", "-f", "-", manifest=pod, fails=True)
    assert 'violates PodSecurity "restricted' in said


def test_the_notes_say_what_to_do_next(api_server, notes):
    """The commands for key, port and prompt name what exists, and what is not for production is named."""
    for word in (
        "kubectl -n trial get millrace",
        "kubectl -n trial port-forward service/millrace-gateway 8080:8080",
        "http://localhost:8080",
        "workerpool/tiny",
        "NOT FOR PRODUCTION",
        "millrace-dev-kafka",
        "millrace-dev-redis",
    ):
        assert word in notes
    (command,) = [line.strip() for line in notes.splitlines() if line.strip().startswith("KEY=")]
    shell = command.removeprefix("KEY=$(").removesuffix(")").split("| ")
    arguments = shell[0].replace("'", "").split()[1:]
    assert shell[1] == "base64 -d"
    assert api_server.kubectl(*arguments) == secret(api_server, "millrace-demo-key", "key")


def test_an_upgrade_keeps_what_was_generated(api_server, notes):
    """The secret of task ids and the demo key are those of the install, also when values change."""
    before = [secret(api_server, "millrace-task-id", "task-id"), secret(api_server, "millrace-demo-key", "key")]
    run_helm(api_server, "upgrade", "--namespace", "trial", values=DEV | {"gateway": {"replicas": 3}})
    assert api_server.get("deployment", "millrace-gateway", "--namespace", "trial")["spec"]["replicas"] == 3
    assert [secret(api_server, "millrace-task-id", "task-id"), secret(api_server, "millrace-demo-key", "key")] == before


def test_the_samples_are_accepted_once_the_definitions_are_served(api_server, notes):
    """Each sample passes the schema and the rules of the CRDs that came with the release."""
    samples = api_server.get("configmap", "millrace-samples", "--namespace", "trial")["data"]
    items = [each for text in samples.values() for each in yaml.safe_load_all(text)]
    manifest = {"apiVersion": "v1", "kind": "List", "items": items}
    said = api_server.kubectl(
        "apply", "--dry-run=server", "--server-side", "--namespace", "trial", "-f", "-", manifest=manifest
    )
    assert said.count("(server dry run)") == len(items) == 6


def allowed(server: ApiServer, account: str, where: str) -> set[tuple[str, str, str]]:
    """(verb, resource with its group, name) of all that an account may do in a namespace."""
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": where}}
    who = [
        ("Impersonate-User", f"system:serviceaccount:trial:{account}"),
        ("Impersonate-Group", "system:serviceaccounts"),
        ("Impersonate-Group", "system:authenticated"),
    ]
    with server.client() as client:
        done = client.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", json=kind, headers=who)
    answer = done.raise_for_status().json()
    return {
        (verb, ".".join(filter(None, (resource, group))), name)
        for rule in answer["status"]["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        if ".".join(filter(None, (resource, group))) not in ANYBODYS
    }


def test_the_operator_may_do_what_its_table_says(api_server, notes):
    """As the API server sees it: all of the table in the release's namespace, only the definitions elsewhere."""
    text = (CHART / "files" / "operator-rbac.yaml").read_text()
    table = yaml.safe_load(re.sub(r"{{.*}}", "millrace-samples-applied", text))
    rows = {
        part: {
            (verb, ".".join(filter(None, (resource, group))), name)
            for row in table[part]
            for verb in row["verbs"]
            for group in row["apiGroups"]
            for resource in row["resources"]
            for name in row.get("resourceNames", [""])
        }
        for part in table
    }
    everything = rows["always"] | rows["samples"] | rows["cluster"]
    assert allowed(api_server, "millrace-operator", "trial") == everything
    assert allowed(api_server, "millrace-operator", "kube-system") == rows["cluster"]


async def test_the_rights_are_enough_for_what_the_operator_does(api_server, notes, tmp_path, monkeypatch):
    """Its own code, with the token of its account: definitions, lists, lease, samples, a pool's objects, status, scale, event,
    watches."""
    monkeypatch.setenv("KUBECONFIG", str(as_operator(api_server, tmp_path)))
    folder = tmp_path / "samples"
    folder.mkdir()
    for name, text in api_server.get("configmap", "millrace-samples", "--namespace", "trial")["data"].items():
        (folder / name).write_text(text)
    async with KubeCluster("trial") as cluster:
        assert len(await cluster.digests()) == 4
        for kind in WATCHED:
            await cluster.list(kind)
        leadership = Leadership(cluster, "trial", "this test")
        leading = asyncio.create_task(leadership.run())
        await asyncio.wait_for(leadership.led.wait(), 10)
        ledger = "millrace-samples-applied"
        await Samples(folder, cluster, namespace="trial", ledger=ledger, leading=lambda: True).run()
        (pool,) = [each for each in await cluster.list("WorkerPool") if each["metadata"]["name"] == "tiny"]
        installed = Installation(worker_image="worker", engine_image="engine")
        manifests = list(objects(msgspec.convert(without_status(pool), WorkerPool), pool, installed))
        for manifest in manifests:
            await cluster.apply(manifest)
        await cluster.patch("WorkerPool", ("trial", "tiny"), {"metadata": {"finalizers": []}})
        await cluster.patch("Pod", ("trial", "none"), {"metadata": {"annotations": {"a": "b"}}})
        await cluster.scale("WorkerPool", ("trial", "tiny"), 2)
        await cluster.scale("Deployment", ("trial", "pool-tiny"), 2)
        for kind in ("WorkerPool", "ModelRoute"):
            await cluster.apply_status(kind, ("trial", "tiny"), {"observedGeneration": 1})
        await cluster.event(pool, "Tested", "The rights are enough.")
        assert await cluster.get("Deployment", ("trial", "pool-tiny"))
        for kind, there in (("WorkerPool", "trial"), ("Secret", "trial"), ("Secret", "kube-system")):
            with pytest.raises(ApiError, match="forbidden"):
                await cluster.get(kind, (there, "any"))
        store = Store(WATCHED)
        watching = asyncio.create_task(watch(store, cluster, "trial"))
        await asyncio.wait_for(store.listed.wait(), 20)
        listed = {kind: min(store.all(kind)) for kind in WATCHED if store.all(kind)}
        assert listed.keys() >= {"WorkerPool", "ModelRoute", "Tenant", "LimitPolicy", "Secret", "Deployment"}
        for kind, (_, name) in listed.items():
            api_server.kubectl("annotate", "--namespace", "trial", kind, name, "example.com/heard=yes")
        heard = lambda kind: "example.com/heard" in store.get(kind, listed[kind])["metadata"].get("annotations", {})  # noqa: E731
        await eventually(lambda: all(map(heard, listed)), within_s=30)  # much sooner than all is listed again
        for task in (watching, leading):
            task.cancel()
        await asyncio.gather(watching, leading, return_exceptions=True)
    assert api_server.get("lease", LEASE, "--namespace", "trial")["spec"]["holderIdentity"] == ""


def without_status(body: Any) -> Any:
    """As a person wrote it."""
    return {key: value for key, value in body.items() if key != "status"}


def as_operator(server: ApiServer, folder: Path) -> Path:
    """A kubeconfig with the operator's own token."""
    token = server.kubectl("create", "token", "millrace-operator", "--namespace", "trial").strip()
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.mark.parametrize(
    "account", ["gateway", "ratelimiter", "cache", "router", "dispatcher", "worker", "dev-kafka", "dev-redis"]
)
def test_no_other_account_may_do_anything(api_server, notes, account):
    """What is left is what anybody may ask about themselves."""
    assert allowed(api_server, f"millrace-{account}", "trial") == set()


def test_definitions_and_what_people_declared_outlive_the_release(api_server, notes):
    """With crds.keep an uninstall leaves them and nothing else; the next install takes them over."""
    keys = [{"name": "one", "sha256": "ab" * 32}]
    tenant = {
        "apiVersion": "millrace.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": "stays"},
        "spec": {"keys": keys},
    }
    api_server.kubectl("apply", "--namespace", "trial", "-f", "-", manifest=tenant)
    run_helm(api_server, "uninstall", "--namespace", "trial")
    assert api_server.get("tenant", "stays", "--namespace", "trial")["metadata"]["name"] == "stays"
    mine = ("--selector", "app.kubernetes.io/instance=millrace", "--namespace", "trial")
    kinds = "deployment,statefulset,service,configmap,secret,serviceaccount,role,rolebinding,clusterrole,poddisruptionbudget"
    assert api_server.get(kinds, *mine)["items"] == []
    run_helm(api_server, "install", "--namespace", "trial", values=DEV)
    assert api_server.get("tenant", "stays", "--namespace", "trial")["metadata"]["name"] == "stays"
