"""Every pod of every render against the restricted profile, and what the house asks beyond it."""

import copy

import pytest

from tests.kubernetes.chart.pod_security import flaws
from tests.kubernetes.chart.rendering import DEV, SWITCHES, pod_of, render, workloads

GOOD = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {"name": "c", "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
    ],
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_pod_is_restricted(switch):
    """No pod of any render has anything that the restricted profile forbids."""
    assert not [
        (name, flaws(pod_of(each))) for name, each in workloads(render(SWITCHES[switch])).items() if flaws(pod_of(each))
    ]


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_pod_has_a_user_of_its_own_and_writes_only_where_it_may(switch):
    """User 10001, a read-only root with /tmp of its own, no variables of other Services, and limits of memory."""
    for workload in workloads(render(SWITCHES[switch])).values():
        pod = pod_of(workload)
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == 10001
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"]["memory"]
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        claims = {each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", [])}
        assert mounted == {volume["name"] for volume in pod["volumes"]} | claims


def test_the_check_finds_nothing_in_a_restricted_pod():
    """The smallest pod that the profile takes has no flaw."""
    assert flaws(GOOD) == []


@pytest.mark.parametrize(
    ("where", "what", "flaw"),
    [
        ("pod", {"hostNetwork": True}, "hostNetwork"),
        ("pod", {"hostPID": True}, "hostPID"),
        ("pod", {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volume v"),
        ("pod", {"securityContext": {}}, "c: runAsNonRoot"),
        ("pod", {"securityContext": {"runAsNonRoot": True}}, "c: seccompProfile"),
        ("context", {"runAsUser": 0}, "c: runAsUser"),
        ("context", {"runAsNonRoot": False}, "c: runAsNonRoot"),
        ("context", {"privileged": True}, "c: privileged"),
        ("context", {"allowPrivilegeEscalation": True}, "c: allowPrivilegeEscalation"),
        ("context", {"capabilities": {}}, "c: capabilities"),
        ("context", {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}, "c: capabilities"),
        ("context", {"seccompProfile": {"type": "Unconfined"}}, "c: seccompProfile"),
        ("context", {"procMount": "Unmasked"}, "c: procMount"),
        ("context", {"seLinuxOptions": {"type": "spc_t"}}, "c: seLinuxOptions"),
        ("context", {"appArmorProfile": {"type": "Unconfined"}}, "c: appArmorProfile"),
        ("container", {"ports": [{"containerPort": 1, "hostPort": 1}]}, "c: hostPort"),
        ("container", {"livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 1}}}, "c: host of a probe"),
    ],
)
def test_the_check_finds_what_is_forbidden(where, what, flaw):
    """Each thing that the profile forbids is found, with its name."""
    pod = copy.deepcopy(GOOD)
    container = pod["containers"][0]
    {"pod": pod, "container": container, "context": container["securityContext"]}[where].update(what)
    assert flaw in flaws(pod)


def test_the_check_looks_at_init_containers():
    """A flaw in one is found like in any other."""
    pod = pod_of(workloads(render(DEV))["millrace-gateway"])
    assert "early: allowPrivilegeEscalation" in flaws(pod | {"initContainers": [{"name": "early"}]})
