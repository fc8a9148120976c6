"""skaffold.yaml as Skaffold itself reads and renders it: without a registry, a docker daemon and, but for one test, a cluster."""

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from services.cli.stack.software import ROOT
from tests.kubernetes.chart.pod_security import flaws
from tests.kubernetes.chart.rendering import (
    DEV,
    NAMESPACE,
    Object,
    environment_of,
    helm,
    pod_of,
    render,
    workloads,
)
from tests.support.api_server import ApiServer, program_path, running

PREFIX = "registry.example.com/millrace"
IMAGES = ("gateway", "ratelimiter", "cache", "router", "dispatcher", "operator", "worker", "triton", "kafka", "redis")
CHART_SAMPLES = {("Secret", "millrace-demo-key"), ("ConfigMap", "millrace-samples")}


def digest(image: str) -> str:
    """Another one for each image."""
    return f"sha256:{image.encode().hex():0<64.64}"


def reference(image: str) -> str:
    """What a push of the image would be known by."""
    return f"{PREFIX}/millrace-{image}:g1@{digest(image)}"


@dataclass(frozen=True)
class Skaffold:
    """The program, with a home of its own and nobody to ask."""

    path: Path
    home: Path

    def __call__(self, *arguments: str, kubeconfig: Path | None = None) -> str:
        """Its output; it must succeed."""
        environment = {
            "HOME": str(self.home),
            "PATH": f"{self.path.parent}:/usr/bin:/bin",
            "KUBECONFIG": str(kubeconfig or self.home / "none"),
            "SKAFFOLD_UPDATE_CHECK": "false",
            "SKAFFOLD_INTERACTIVE": "false",
        }
        done = subprocess.run(
            [self.path, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def render(self, *arguments: str) -> list[Object]:
        """What it would deploy, after a build that pushed every image."""
        images = ",".join(f"millrace-{name}={reference(name)}" for name in (*IMAGES, "triton-gpu"))
        built = [] if "ci" in arguments else ["--images", images]
        return self._rendered("--digest-source=none", *built, *arguments)

    def render_tags(self, *arguments: str) -> list[Object]:
        """The same before any build."""
        return self._rendered("--digest-source=tag", "--default-repo", PREFIX, *arguments)

    def _rendered(self, *arguments: str) -> list[Object]:
        out = self.home / "rendered.yaml"
        self("render", "--offline", "--output", str(out), "--namespace", NAMESPACE, *arguments)
        return [each for each in yaml.safe_load_all(out.read_text()) if each]

    def config(self, *arguments: str) -> dict[str, Object]:
        """The effective configuration of each module."""
        documents = yaml.safe_load_all(self("diagnose", "--yaml-only", *arguments))
        return {each["metadata"]["name"]: each for each in documents}


@pytest.fixture(scope="module")
def skaffold(tmp_path_factory: pytest.TempPathFactory) -> Skaffold:
    """What `deploy/cluster/cluster build skaffold` made; it uses the helm beside it."""
    path = program_path("skaffold")
    if not path.exists():
        pytest.skip("skaffold is not built: deploy/cluster/cluster build skaffold")
    return Skaffold(path, tmp_path_factory.mktemp("skaffold"))


def names(objects: list[Object]) -> set[tuple[str, str]]:
    return {(each["kind"], each["metadata"]["name"]) for each in objects}


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def read(name: str) -> list[Object]:
    return list(yaml.safe_load_all((ROOT / "deploy" / "samples" / name).read_text()))


def images(objects: list[Object]) -> dict[str, str]:
    """Of every container that the chart makes, and of the pods that the operator makes, by component."""
    found = {
        workload["metadata"]["labels"]["app.kubernetes.io/component"]: container["image"]
        for workload in workloads(objects).values()
        for container in pod_of(workload)["containers"]
    }
    operator = environment_of(objects, workloads(objects)["millrace-operator"])
    return found | {
        "worker": operator["MILLRACE_OPERATOR__WORKER_IMAGE"],
        "engine": operator["MILLRACE_OPERATOR__ENGINE_IMAGE"],
    }


def test_skaffold_finds_the_files_of_every_artifact(skaffold):
    """Its own diagnosis of the three modules: ten artifacts, each with files to watch, none of them bytecode."""
    said = skaffold("diagnose", "-m", "core")
    assert "Configuration version: skaffold/v4beta13" in said
    assert said.count("Custom artifact: millrace-") == said.count(" - Dependencies: ") == len(IMAGES)
    assert " - Dependencies: 0 files" not in said
    assert "Number of artifacts: 10" in said


def test_the_default_is_the_profile_cpu(skaffold):
    """The same configuration of all modules."""
    assert skaffold.config() == skaffold.config("-p", "cpu")


@pytest.mark.parametrize(
    ("profile", "built"),
    [
        ("cpu", set(IMAGES)),
        ("gpu", {*IMAGES, "triton-gpu"} - {"triton"}),
        ("ci", set()),
    ],
)
def test_a_profile_says_what_is_built(skaffold, profile, built):
    """By the images' build, and pushed; nothing in ci."""
    configs = skaffold.config("-p", profile)
    assert list(configs) == ["core", "workers", "load"]
    build = configs["core"]["build"]
    artifacts = build.get("artifacts", [])
    assert {each["image"].removeprefix("millrace-") for each in artifacts} == built
    assert all(each["custom"]["buildCommand"].startswith("deploy/images/build ") for each in artifacts)
    assert build["local"]["push"]
    assert not any(configs[module].get("build", {}).get("artifacts") for module in ("workers", "load"))


def test_core_is_the_chart_with_the_images_of_the_build(skaffold):
    """The objects of a `helm install` for development, each image by the digest of its own build."""
    objects = skaffold.render("-m", "core")
    crds = {name for kind, name in names(objects) if kind == "CustomResourceDefinition"}
    assert len(crds) == 4
    assert names(objects) - {("CustomResourceDefinition", name) for name in crds} == names(render(DEV))
    expected = {name: f"{PREFIX}/millrace-{name}@{digest(name)}" for name in IMAGES}
    expected |= {
        "dev-kafka": expected.pop("kafka"),
        "dev-redis": expected.pop("redis"),
        "engine": expected.pop("triton"),
    }
    assert images(objects) == expected


def test_without_digests_the_images_have_the_commits_tag(skaffold):
    """One tag for all, which nobody takes for a number, in the repository that the command names."""
    found = images(skaffold.render_tags("-m", "core"))
    (tag,) = {image.rpartition(":")[2] for image in found.values()}
    assert tag.startswith("g")
    assert all(image.startswith(f"{PREFIX}/millrace-") for image in found.values())


def test_workers_adds_the_samples_for_a_cpu(skaffold):
    """And nothing else to the platform."""
    core, workers = skaffold.render("-m", "core"), skaffold.render("-m", "workers")
    assert names(workers) - names(core) == names([*read("simulator.yaml"), *read("tenant.yaml")])
    assert names(core) < names(workers)


def test_load_adds_a_job_and_its_key(skaffold):
    """As a tenant of its own, in the image of the gateway; the program is the one of deploy/load."""
    workers, load = skaffold.render("-m", "workers"), skaffold.render("-m", "load")
    assert names(load) - names(workers) == {
        ("Tenant", "load"),
        ("Secret", "load"),
        ("ConfigMap", "load"),
        ("Job", "load-1"),
    }
    pod = pod_of(of_kind(load, "Job")["load-1"])
    assert not flaws(pod)
    (container,) = pod["containers"]
    assert container["image"] == reference("gateway")
    told = {each["name"]: each.get("value") for each in container["env"]}
    assert told["LOAD_MODEL"] in of_kind(load, "ModelRoute")
    host, _, port = told["LOAD_GATEWAY"].partition(":")
    assert int(port) in [each["port"] for each in of_kind(load, "Service")[host]["spec"]["ports"]]
    assert of_kind(load, "ConfigMap")["load"]["data"]["load.py"] == (ROOT / "deploy" / "load" / "load.py").read_text()


def test_gpu_has_pools_on_gpus_and_their_engine(skaffold):
    """The engine is the image that was built for them, and the pool that has no model for it is not made."""
    objects = skaffold.render("-p", "gpu", "-m", "load")
    assert images(objects)["engine"] == reference("triton-gpu")
    assert not CHART_SAMPLES & names(objects)
    pools = of_kind(objects, "WorkerPool")
    assert {name for name, pool in pools.items() if "accelerator" in pool["spec"]} == {"llama-8b", "llama-8b-canary"}
    asked = {
        each["name"]: each.get("value") for each in pod_of(of_kind(objects, "Job")["load-1"])["containers"][0]["env"]
    }
    served = {
        each["spec"].get("model", name): each["spec"]["targets"]
        for name, each in of_kind(objects, "ModelRoute").items()
    }
    assert [target["pool"] for target in served[asked["LOAD_MODEL"]]] == ["llama-8b", "llama-8b-canary"]


def test_ci_is_small_and_takes_the_images_that_are_there(skaffold):
    """One pod of each, no volume, and the names that `deploy/images/build --load` gives."""
    objects = skaffold.render("-p", "ci", "-m", "load")
    assert {each["spec"]["replicas"] for each in workloads(objects).values()} == {1}
    assert not of_kind(objects, "PodDisruptionBudget")
    assert not any("volumeClaimTemplates" in each["spec"] for each in workloads(objects).values())
    assert not any("topologySpreadConstraints" in pod_of(each) for each in workloads(objects).values())
    build = subprocess.run(
        [ROOT / "deploy/images/build", "--list"], capture_output=True, text=True, check=True, timeout=20
    )
    there = {line.split()[0] for line in build.stdout.splitlines()}
    (container,) = pod_of(of_kind(objects, "Job")["load-1"])["containers"]
    assert {*images(objects).values(), container["image"]} == there
    assert ("ConfigMap", "millrace-samples") in names(objects)


@pytest.mark.parametrize("profile", ["cpu", "gpu", "ci"])
def test_a_server_takes_what_is_rendered(skaffold, cluster: ApiServer, profile):
    """Every object of all modules, with the restricted profile of pod security enforced."""
    where = cluster.restricted_namespace(f"skaffold-{profile}")
    objects = [
        each for each in skaffold.render("-p", profile, "-m", "load") if each["kind"] != "CustomResourceDefinition"
    ]
    for each in objects:
        each["metadata"].pop("namespace", None)
    said = cluster.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-n", where, "-f", "-",
        manifest={"apiVersion": "v1", "kind": "List", "items": objects},
    )  # fmt: skip
    assert len(said.splitlines()) == len(objects), said
    assert "would violate" not in said


@pytest.mark.timeout(180)  # a server of its own, and three times Helm
def test_skaffold_runs_on_an_empty_cluster(skaffold, tmp_path):
    """The definitions are there before the samples are; once more changes nothing, and the end leaves nothing behind."""
    kinds = ("WorkerPool", "ModelRoute", "Tenant", "LimitPolicy", "Deployment", "StatefulSet", "Job")
    with running(tmp_path) as server:

        def ask(command: str, *options: str) -> str:
            return skaffold(command, "-p", "ci", *options, kubeconfig=server.kubeconfig)

        def there() -> set[tuple[str, str]]:
            return names(server.get(",".join(kinds))["items"])

        expected = {each for each in names(skaffold.render("-p", "ci", "-m", "load")) if each[0] in kinds}
        ask("run", "--status-check=false")  # nobody makes pods here
        assert there() == expected
        ask("run", "--status-check=false")
        assert there() == expected - {("Job", "load-1")} | {("Job", "load-2")}
        ask("delete")
        assert there() == set()


def test_each_load_is_a_job_of_its_own_with_the_same_key(cluster: ApiServer):
    """A job cannot be changed, so an upgrade makes another; the tenant's key is made once."""
    cluster.kubectl("create", "namespace", "load")
    keys = []
    for revision in (1, 2):
        helm(
            "upgrade", "--install", "load", str(ROOT / "deploy" / "load"), "--namespace", "load",
            "--set", f"seconds={revision}", "--kubeconfig", str(cluster.kubeconfig),
            environment={"HELM_CACHE_HOME": str(cluster.folder / "helm")},
        )  # fmt: skip
        keys.append(cluster.get("secret", "load", "-n", "load")["data"]["key"])
        jobs = cluster.get("jobs", "-n", "load")["items"]
        assert [each["metadata"]["name"] for each in jobs if "deletionTimestamp" not in each["metadata"]] == [
            f"load-{revision}"
        ]
    assert keys[0] == keys[1]
    assert base64.b64decode(keys[0]).startswith(b"mr_")
