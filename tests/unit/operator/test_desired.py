"""The objects of a pool, and what is read from those that Kubernetes has."""

from dataclasses import replace

import pytest
import yaml

from millrace_operator.core.desired import CHECKSUM, Installation, objects
from millrace_operator.core.manifests import Manifest, read
from millrace_operator.core.pods import by_hand, facts_of
from services.cli.stack.software import ROOT

INSTALLED = Installation(
    worker_image="worker:1", engine_image="engine:1", environment="env", secret="hidden", pull_secrets=("registry",)
)
OWNER = {
    "apiVersion": "millrace.dev/v1alpha1",
    "kind": "WorkerPool",
    "metadata": {"namespace": "here", "name": "p", "uid": "u1"},
}


def pool(**spec):
    document = {
        "apiVersion": "millrace.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": "p"},
        "spec": {"model": {"name": "m"}} | spec,
    }
    return read(Manifest("test", 1, document))


def deployment(installed=INSTALLED, **spec):
    made = {made["kind"]: made for made in objects(pool(**spec), OWNER, installed)}
    return made["Deployment"]["spec"]


def sample(name: str):
    documents = yaml.safe_load_all((ROOT / "deploy" / "samples" / name).read_text())
    return next(one for one in documents if one["kind"] == "WorkerPool")


def test_replicas_are_nobodys_but_the_scalers():
    """An apply of the template must not move them."""
    assert "replicas" not in deployment(replicas=7)


def test_the_engine_is_a_sidecar_that_the_worker_speaks_to():
    """It is ready before the worker begins and stays until the worker is done."""
    pod = deployment()["template"]["spec"]
    (engine,), (worker,) = pod["initContainers"], pod["containers"]
    assert (engine["restartPolicy"], engine["image"], worker["image"]) == ("Always", "engine:1", "worker:1")
    environment = {entry["name"]: entry.get("value") for entry in worker["env"]}
    assert environment["MILLRACE_WORKER__TRITON_ADDRESS"] == "127.0.0.1:8001"
    assert environment["MILLRACE_WORKER__POOL"] == "p"
    assert worker["envFrom"] == [{"configMapRef": {"name": "env"}}, {"secretRef": {"name": "hidden"}}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    probe = engine["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1800


def test_another_environment_replaces_the_workers():
    """Its content stands behind a name that stays, so its checksum is in the template; a person's annotation is no way around."""
    template = [deployment(replace(INSTALLED, checksum=each))["template"] for each in ("", "one", "one", "two")]
    assert template[0] != template[1] == template[2] != template[3]
    assert template[1]["metadata"]["annotations"][CHECKSUM] == "one"
    assert CHECKSUM not in template[0]["metadata"]["annotations"]
    theirs = deployment(replace(INSTALLED, checksum="one"), template={"annotations": {CHECKSUM: "mine"}})
    assert theirs["template"] == template[1]


def test_a_simulated_pool_has_no_engine():
    """Its worker makes the text, at the pool's pace."""
    pod = deployment(engine={"kind": "Simulator", "simulator": {"tokensPerSecond": 20}})["template"]["spec"]
    assert "initContainers" not in pod
    environment = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert environment["MILLRACE_WORKER__SIMULATOR_TOKENS_PER_S"] == "20"


def test_a_gpu_pool_gets_its_accelerator_its_node_its_memory_and_its_model():
    """Of the sample: requests and limits alike, the product's nodes, /dev/shm, a cache, and the model in both containers."""
    spec = sample("canary.yaml")["spec"]
    pod = deployment(**spec)["template"]["spec"]
    (engine,), (worker,) = pod["initContainers"], pod["containers"]
    for side in ("requests", "limits"):
        assert engine["resources"][side]["nvidia.com/gpu"] == "1"
        assert "nvidia.com/gpu" not in worker["resources"].get(side, {})
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod["terminationGracePeriodSeconds"] == 600
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    mounts = {mount["name"]: mount["mountPath"] for mount in engine["volumeMounts"]}
    assert (mounts["cache"], mounts["shm"], mounts["models"]) == ("/cache", "/dev/shm", "/models")
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in worker["volumeMounts"]


def test_only_a_hand_at_the_wheel_counts_as_one():
    """Somebody who scales; neither the operator nor whoever made the pool with a number in its manifest."""

    def seen(manager, subresource="", time="2026-01-01T00:05:00Z"):
        entry = {
            "manager": manager,
            "time": time,
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
            "subresource": subresource,
        }
        return {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [entry]}}

    at = 1767225900.0
    assert by_hand(seen("kubectl", "scale"), ("us",)) == at
    assert by_hand(seen("kubectl"), ("us",)) == at
    assert by_hand(seen("us", "scale"), ("us",)) is None
    assert by_hand(seen("kubectl", time="2026-01-01T00:00:00Z"), ("us",)) is None


@pytest.mark.parametrize(
    ("state", "waiting"),
    [({"waiting": {"reason": "PodInitializing"}}, ""), ({"waiting": {"reason": "ErrImagePull"}}, "ErrImagePull")],
)
def test_a_pod_that_is_on_its_way_has_no_trouble(state, waiting):
    """Waiting for one's turn is not being stuck."""
    status = {"containerStatuses": [{"state": state, "restartCount": 0}]}
    metadata = {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}
    assert facts_of({"metadata": metadata, "status": status}, draining=False).waiting == waiting
