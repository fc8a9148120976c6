"""The chart as Helm renders it, without a cluster.

python -m tests.kubernetes.chart.rendering --update      write golden/ anew; then look at the difference
"""

import difflib
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from services.cli.stack.software import ROOT
from tests.support.api_server import program

CHART = ROOT / "charts" / "millrace"
GOLDEN = Path(__file__).parent / "golden"
RELEASE, NAMESPACE = "millrace", "inference"
KUBERNETES = "1.34.4"
GENERATED = {("millrace-task-id", "task-id"), ("millrace-demo-key", "key")}
COMMON_LABELS = {
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
}

Object = dict[str, Any]

OWN: Object = {"kafka": {"bootstrapServers": "kafka.infra:9092"}, "redis": {"url": "redis://redis.infra:6379/0"}}
DEV: Object = {"dev": {"enabled": True}}
EXTRA: Object = {
    "replicas": 3,
    "resources": {"limits": {"memory": "3Gi"}},
    "extraEnv": [{"name": "MILLRACE_COMMON__LOG_LEVEL", "value": "DEBUG"}],
    "extraVolumes": [{"name": "certificates", "configMap": {"name": "certificates"}}],
    "extraVolumeMounts": [{"name": "certificates", "mountPath": "/etc/certificates", "readOnly": True}],
    "extraContainers": [
        {
            "name": "sidecar",
            "image": "registry.example.com/sidecar:1",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "resources": {"limits": {"memory": "64Mi"}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
    ],
    "podAnnotations": {"example.com/team": "inference"},
    "podLabels": {"example.com/cost": "inference"},
    "nodeSelector": {"example.com/kind": "services"},
    "tolerations": [{"key": "services", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}]
            }
        }
    },
}  # fmt: skip
SERVICES = ("gateway", "ratelimiter", "cache", "router", "dispatcher")
COMPONENTS = (*SERVICES, "operator")
WRITTEN = "# Written by python -m tests.kubernetes.chart.rendering --update\n"
BASES = ("default", "dev")
DIGEST = "sha256:" + "0123456789abcdef" * 4

# One for each switch. The golden files of the first two have everything, the others what differs from them.
SWITCHES: dict[str, Object] = {
    "default": OWN,
    "dev": DEV,
    "dev-persistence": {"dev": {"enabled": True, "persistence": {"enabled": True, "storageClassName": "fast"}}},
    "dev-own-kafka": {"dev": {"enabled": True}, "kafka": OWN["kafka"]},
    "dev-without-samples": {"dev": {"enabled": True, "samples": False}},
    "existing-secrets": {
        "kafka": {"existingSecret": "stores", "partitions": 12},
        "redis": {"existingSecret": "stores"},
        "taskId": {"existingSecret": "task-ids", "key": "secret"},
    },
    "images": OWN
    | {
        "images": {
            "registry": "registry.example.com/inference",
            "tag": "1.2.3",
            "pullPolicy": "Always",
            "pullSecrets": ["registry"],
            "engine": "nvcr.io/nvidia/tritonserver:25.06-trtllm-python-py3",
            "digests": {"gateway": DIGEST, "worker": DIGEST},
        }
    },
    "standby-operator": OWN | {"operator": {"replicas": 2}},
    "network-policy": OWN | {"networkPolicy": {"enabled": True}},
    "network-policy-dev": DEV | {"networkPolicy": {"enabled": True}, "monitoring": {"podMonitor": {"enabled": True}}},
    "network-policy-peers": OWN
    | {
        "networkPolicy": {
            "enabled": True,
            "clientsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "dns": {"to": [{"ipBlock": {"cidr": "10.96.0.10/32"}}], "ports": [5353]},
            "kafka": {"to": [{"ipBlock": {"cidr": "10.1.0.0/24"}}], "ports": [9093]},
            "redis": {"to": [{"ipBlock": {"cidr": "10.2.0.0/24"}}], "ports": [6380]},
            "kubernetes": {"to": [{"ipBlock": {"cidr": "10.3.0.1/32"}}], "ports": [443]},
        }
    },
    "without-budgets-and-spread": OWN
    | {"podDisruptionBudgets": {"enabled": False}, "topologySpread": {"enabled": False}},
    "priority-classes": OWN | {"priorityClasses": {"enabled": True}},
    "ingress": OWN
    | {
        "ingress": {
            "enabled": True,
            "className": "contour",
            "host": "chat.example.com",
            "grpcHost": "grpc.example.com",
            "grpcAnnotations": {"projectcontour.io/upstream-protocol.h2c": "8081"},
            "tlsSecret": "certificate",
        }
    },
    "gateway-api": OWN
    | {
        "gatewayApi": {
            "enabled": True,
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "hostnames": ["chat.example.com"],
            "grpcHostnames": ["grpc.example.com"],
        },
        "gateway": {"service": {"httpPort": 80, "grpcPort": 81}},
    },
    "load-balancer": OWN | {"gateway": {"service": {"type": "LoadBalancer", "annotations": {"example.com/internal": "true"}}}},
    "monitoring": OWN
    | {
        "monitoring": {
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboards": {"enabled": True},
        }
    },
    "extras": OWN | {name: EXTRA | ({"replicas": 2} if name == "operator" else {}) for name in COMPONENTS},
    "timing": OWN | {"preStopSeconds": 15, "drainSeconds": 120, "logLevel": "DEBUG"},
}  # fmt: skip


def helm(
    *arguments: str, values: Object | None = None, environment: dict[str, str] | None = None, fails: bool = False
) -> str:
    """Output of `helm`; `values` is what `-f -` reads. When it `fails`, what it says."""
    done = subprocess.run(
        [program("helm"), *arguments],
        input=None if values is None else yaml.safe_dump(values),
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def template(values: Object, *arguments: str, fails: bool = False) -> str:
    """What `helm template` prints."""
    where = ("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", KUBERNETES)
    return helm(*where, "-f", "-", *arguments, values=values, fails=fails)


def render(values: Object) -> list[Object]:
    """All objects but the custom resource definitions, which are a chart of their own."""
    return json.loads(_rendered(json.dumps(values, sort_keys=True)))  # type: ignore[no-any-return]


@functools.cache
def _rendered(values: str) -> str:
    objects = yaml.safe_load_all(template(json.loads(values) | {"crds": {"enabled": False}}))
    return json.dumps([each for each in objects if each])


def identity(each: Object) -> str:
    """Kind and name, with the namespace when it is not the release's."""
    where = each["metadata"].get("namespace", NAMESPACE)
    return f"{each['kind']} {each['metadata']['name']}" + ("" if where == NAMESPACE else f" in {where}")


def find(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of this kind and name in the release's namespace."""
    (found,) = [each for each in objects if identity(each) == f"{kind} {name}"]
    return found


def workloads(objects: list[Object]) -> dict[str, Object]:
    """Everything that makes pods, by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] in {"Deployment", "StatefulSet"}}


def pod_of(workload: Object) -> Object:
    """Its pod's spec."""
    return workload["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def environment_of(objects: list[Object], workload: Object) -> dict[str, str]:
    """What its first container is told, by ConfigMaps and by itself; a reference as `secret/entry` or the field's path."""
    container = pod_of(workload)["containers"][0]
    told: dict[str, str] = {}
    for source in container.get("envFrom", []):
        told |= find(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", []):
        if "value" in entry:
            told[entry["name"]] = entry["value"]
        elif "secretKeyRef" in entry["valueFrom"]:
            told[entry["name"]] = "/".join(entry["valueFrom"]["secretKeyRef"][part] for part in ("name", "key"))
        else:
            told[entry["name"]] = entry["valueFrom"]["fieldRef"]["fieldPath"]
    return told


def golden_path(switch: str) -> Path:
    """A whole render for the two bases, what differs from them for the rest."""
    return GOLDEN / (f"{switch}.yaml" if switch in BASES else f"{switch}.diff")


def golden(switch: str) -> str:
    """What the golden file of a switch should have."""
    objects = _texts(switch)
    if switch in BASES:
        return WRITTEN + "".join(f"---\n{objects[name]}" for name in sorted(objects))
    base = "dev" if SWITCHES[switch].get("dev") else "default"
    before = _texts(base)
    parts = [WRITTEN, f"# against {base}.yaml\n"]
    for name in sorted(before.keys() | objects.keys()):
        old, new = before.get(name, ""), objects.get(name, "")
        lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=2, lineterm=""))[2:]
        if not new:
            parts.append(f"\n== gone: {name}\n")
        elif not old:
            parts.append(f"\n== new: {name}\n{new}")
        elif lines:
            parts.append(f"\n== {name}\n" + "".join(f"{'@@' if line[:2] == '@@' else line}\n" for line in lines))
    return "".join(parts)


def _texts(switch: str) -> dict[str, str]:
    objects = map(_settled, render(SWITCHES[switch]))
    return {identity(each): yaml.safe_dump(each, sort_keys=False, width=140) for each in objects}


def _settled(each: Object) -> Object:
    """Without what is different each time, and without the labels that every object has."""
    labels = {key: value for key, value in each["metadata"]["labels"].items() if key not in COMMON_LABELS}
    settled = each | {"metadata": each["metadata"] | {"labels": labels}}
    if each["kind"] == "Secret":
        name = each["metadata"]["name"]
        settled["data"] = {k: "(generated)" if (name, k) in GENERATED else v for k, v in each["data"].items()}
    return settled


def update() -> None:
    """Write every golden file, remove those of switches that are no more."""
    GOLDEN.mkdir(exist_ok=True)
    for path in set(GOLDEN.iterdir()) - {golden_path(switch) for switch in SWITCHES}:
        path.unlink()
    for switch in SWITCHES:
        golden_path(switch).write_text(golden(switch))


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(__doc__)
    update()
