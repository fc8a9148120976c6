"""The pods that the operator makes for the samples fit what the chart has for them."""

import msgspec
import pytest
import yaml

from millrace_operator.core.desired import ADMIN_PORT, CHECKSUM, objects
from millrace_operator.core.schema import WorkerPool
from millrace_operator.main import installation
from millrace_operator.settings import OperatorSettings
from services.chassis.settings import load
from tests.kubernetes.chart.pod_security import flaws
from tests.kubernetes.chart.rendering import CHART, DEV, SWITCHES, environment_of, find, render, workloads

PORTS = yaml.safe_load((CHART / "files" / "topology.yaml").read_text())["ports"]


@pytest.fixture(scope="module", params=["tiny.yaml", "simulator.yaml"])
def made(request):
    """What the operator makes for a sample, told what the chart tells it, by kind."""
    rendered = render(DEV)
    told = environment_of(rendered, workloads(rendered)["millrace-operator"])
    samples = find(rendered, "ConfigMap", "millrace-samples")["data"]
    (sample,) = [each for each in yaml.safe_load_all(samples[request.param]) if each["kind"] == "WorkerPool"]
    owner = sample | {"metadata": sample["metadata"] | {"namespace": "inference", "uid": "1"}}
    installed = installation(load(OperatorSettings, "operator", told))
    return {each["kind"]: each for each in objects(msgspec.convert(sample, WorkerPool), owner, installed)}


def test_workers_are_restricted_too(made):
    """Their pods pass the same check as those of the chart."""
    assert flaws(made["Deployment"]["spec"]["template"]["spec"]) == []


def test_policies_and_monitors_select_the_workers(made):
    """The label by which the chart knows workers is on their pods, and no other component's selector matches them."""
    labels = made["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selector = find(render(SWITCHES["network-policy"]), "NetworkPolicy", "millrace-worker")["spec"]["podSelector"]
    assert [each["key"] in labels for each in selector["matchExpressions"]] == [True]
    for each in render(SWITCHES["network-policy"]):
        if each["kind"] in {"PodDisruptionBudget", "Service"}:
            wanted = each["spec"]["selector"]
            assert not wanted.get("matchLabels", wanted).items() <= labels.items()


def test_ports_have_the_names_that_the_chart_asks_for(made):
    """`admin` is the worker's, `metrics` the engine's, at the numbers of the policies."""
    pod = made["Deployment"]["spec"]["template"]["spec"]
    ports = {
        port["name"]: port["containerPort"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]
        for port in container["ports"]
    }
    assert ports["admin"] == ADMIN_PORT == PORTS["worker"]["admin"]
    assert ports.get("metrics", PORTS["worker"]["metrics"]) == PORTS["worker"]["metrics"]


def test_workers_carry_the_checksum_of_what_they_read(made):
    """What the chart tells of their environment is in the template of their pods, so another one replaces them."""
    rendered = render(DEV)
    told = environment_of(rendered, workloads(rendered)["millrace-operator"])["MILLRACE_OPERATOR__WORKER_CHECKSUM"]
    assert len(told) == 64
    assert made["Deployment"]["spec"]["template"]["metadata"]["annotations"][CHECKSUM] == told


def test_the_workers_own_settings_go_before_the_common_ones(made):
    """Nothing that the operator tells a worker of its pool stands in the common environment as well."""
    (worker,) = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    common = find(render(DEV), "ConfigMap", worker["envFrom"][0]["configMapRef"]["name"])["data"]
    assert not {entry["name"] for entry in worker["env"]} & common.keys()
