"""What the operator makes of the samples, those for GPUs too, as a real API server takes it: strictly, and under the restricted profile."""

from typing import Any

import pytest
import yaml

from millrace_operator.core.desired import Installation, objects
from millrace_operator.core.manifests import Manifest, read
from services.cli.stack.software import ROOT
from tests.support.api_server import ApiServer

INSTALLED = Installation(worker_image="worker:1", engine_image="engine:1", environment="env", service_account="worker")
SPACE = "samples"
POOLS = {
    document["metadata"]["name"]: document
    for path in sorted((ROOT / "deploy" / "samples").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
    if document["kind"] == "WorkerPool"
}


@pytest.fixture(scope="module")
def space(cluster: ApiServer) -> ApiServer:
    """With a namespace that holds pods to the restricted profile, and the workers' account in it."""
    cluster.restricted_namespace(SPACE)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "worker", "namespace": SPACE}}
    cluster.kubectl("apply", "-f", "-", manifest=account)
    return cluster


def made_of(pool: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The objects of a pool, and the template of its pods."""
    owner = {**pool, "metadata": {**pool["metadata"], "namespace": SPACE, "uid": "1"}}
    made = [dict(each) for each in objects(read(Manifest("sample", 1, pool)), owner, INSTALLED)]
    return made, next(each for each in made if each["kind"] == "Deployment")["spec"]["template"]


@pytest.mark.parametrize("name", sorted(POOLS))
def test_the_objects_of_a_sample_are_taken_and_a_pod_of_it_is_let_in(space: ApiServer, name: str) -> None:
    """By a server-side dry run, with unknown fields refused and without a warning."""
    made, template = made_of(POOLS[name])
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": name, **template["metadata"]}}
    run = ("apply", "--dry-run=server", "--validate=strict", "--namespace", SPACE, "-f", "-")
    said = space.kubectl(*run, manifest={"apiVersion": "v1", "kind": "List", "items": [*made, pod]})
    assert said.count("(server dry run)") == len(made) + 1
    assert "Warning" not in said


def test_there_are_samples_for_gpus() -> None:
    """Each with room in its startup probe for the slowest start: a model read from a cold volume and compiled."""
    gpus = [pool for pool in POOLS.values() if "accelerator" in pool["spec"]]
    assert gpus
    for pool in gpus:
        (engine,) = made_of(pool)[1]["spec"]["initContainers"]
        probe = engine["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 1800
