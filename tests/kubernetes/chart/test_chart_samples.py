"""The samples that the operator applies on an empty cluster."""

import base64
import hashlib
import re

import pytest
import yaml

from millrace.config.v1.config_pb2 import Snapshot
from millrace_operator.core.manifests import Manifest
from millrace_operator.core.snapshot import compile_snapshot
from services.cli.stack.software import ROOT
from tests.kubernetes.chart.rendering import CHART, DEV, OWN, environment_of, find, pod_of, render, workloads


@pytest.fixture(scope="module")
def compiled():
    """What the services would be told, with the key's Secret beside the samples."""
    objects = render(DEV)
    samples = find(objects, "ConfigMap", "millrace-samples")["data"]
    documents = [each for text in samples.values() for each in yaml.safe_load_all(text)]
    secret = find(objects, "Secret", "millrace-demo-key")
    made = compile_snapshot([Manifest("samples", n, each) for n, each in enumerate([*documents, secret], start=1)])
    assert isinstance(made, Snapshot), made
    return made


def test_the_samples_make_a_configuration(compiled):
    """A pool with an engine, one without, a route to each, and one tenant."""
    assert [pool.name for pool in compiled.pools] == ["simulator", "tiny"]
    assert [route.model for route in compiled.routes] == ["simulator", "tiny"]
    assert [tenant.name for tenant in compiled.tenants] == ["demo"]


def test_the_generated_key_is_the_tenants(compiled):
    """The key in the Secret has the form of an API key, and its hash is the tenant's."""
    secret = find(render(DEV), "Secret", "millrace-demo-key")
    key = base64.b64decode(secret["data"]["key"])
    assert compiled.tenants[0].keys[0].sha256 == hashlib.sha256(key).digest()


def test_a_sample_of_both_folders_is_one_file():
    """What the chart brings and deploy/samples too is not written twice."""
    folders = (CHART / "files" / "samples", ROOT / "deploy" / "samples")
    places: dict = {}
    for path in (path for folder in folders for path in folder.glob("*.yaml")):
        for kind, name in re.findall(r"^kind: (\w+)\nmetadata:\n  name: (\S+)$", path.read_text(), re.MULTILINE):
            places.setdefault((kind, name), []).append(path.resolve())
    twice = {sample: paths for sample, paths in places.items() if len(paths) > 1}
    assert ("WorkerPool", "simulator") in twice
    assert all(len(set(paths)) == 1 for paths in twice.values())


def test_the_operator_finds_the_samples():
    """They are mounted where it is told to look; without dev neither the files nor the word are there."""
    objects = render(DEV)
    operator = workloads(objects)["millrace-operator"]
    where = environment_of(objects, operator)["MILLRACE_OPERATOR__SAMPLES"]
    assert where == "/etc/millrace/samples"
    assert {"name": "samples", "mountPath": where, "readOnly": True} in pod_of(operator)["containers"][0][
        "volumeMounts"
    ]
    assert {"name": "samples", "configMap": {"name": "millrace-samples"}} in pod_of(operator)["volumes"]
    assert "samples" not in yaml.safe_dump(workloads(render(OWN)))


def test_the_examples_of_the_readme_make_a_configuration():
    """Every manifest of Millrace in the chart's README is accepted, together."""
    blocks = re.findall(r"```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL)
    documents = [each for block in blocks for each in yaml.safe_load_all(block)]
    mine = [each for each in documents if each["apiVersion"].startswith("millrace.dev/")]
    made = compile_snapshot([Manifest("README.md", n, each) for n, each in enumerate(mine, start=1)])
    assert isinstance(made, Snapshot), made
    assert len(mine) == len(made.pools) + len(made.routes) + len(made.tenants) == 3
