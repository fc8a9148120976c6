"""The objects of a pool: a Deployment of workers with their engines, a PodDisruptionBudget, a Service for scraping.

The Deployment's replicas are nowhere in it: they belong to the scaler alone, and an apply of the template must not move them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from millrace_operator.core.schema import WorkerPool
from millrace_operator.core.worker_pool import Resources, Simulator, Template, Triton

ADMIN_PORT: Final = 9106
CHECKSUM: Final = "checksum/config"  # of what the workers read at their start and only name: another one replaces them
POOL_LABEL: Final = "millrace.dev/pool"
UID: Final = 10001  # of the images
CACHE: Final = "/cache"  # where libraries of GPU engines keep what they compile
PREFIX: Final = "pool-"
STARTUP_S: Final = 1800  # the longest cold start: large weights from a cold disk, engines built at the first start
STARTUP_PERIOD_S: Final = 2

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What the operator was installed with, the same for all pools."""

    worker_image: str
    engine_image: str
    pull_policy: str = "IfNotPresent"
    service_account: str = "default"
    environment: str = ""  # a ConfigMap with what all workers need: Redis, Kafka, caches
    checksum: str = ""  # of the ConfigMap's content
    secret: str = ""  # a Secret with more of it
    pull_secrets: tuple[str, ...] = ()


def name_of(pool: str) -> str:
    """Of a pool's objects.

    >>> name_of("tiny")
    'pool-tiny'
    """
    return f"{PREFIX}{pool}"


def labels_of(pool: str) -> Json:
    """What selects a pool's pods."""
    return {POOL_LABEL: pool}


def selector_of(pool: str) -> str:
    """The same as text, for autoscalers."""
    return f"{POOL_LABEL}={pool}"


def owned_by(pool: Mapping[str, Any]) -> Json:
    """The owner reference with which an object goes when its pool goes. `pool`: as the API server has it."""
    return {
        "apiVersion": pool["apiVersion"],
        "kind": pool["kind"],
        "name": pool["metadata"]["name"],
        "uid": pool["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def objects(pool: WorkerPool, owner: Mapping[str, Any], installed: Installation) -> Iterator[Json]:
    """Everything that a pool needs but its number of workers. `owner`: the pool as the API server has it."""
    yield _deployment(pool, owner, installed)
    yield _budget(pool, owner)
    yield _service(pool, owner)


def _head(pool: WorkerPool, owner: Mapping[str, Any], api_version: str, kind: str) -> Json:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name_of(pool.metadata.name),
            "namespace": owner["metadata"]["namespace"],
            "labels": _all_labels(pool),
            "ownerReferences": [owned_by(owner)],
        },
    }


def _all_labels(pool: WorkerPool) -> Json:
    return labels_of(pool.metadata.name) | {
        "app.kubernetes.io/name": "millrace",
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/managed-by": "millrace-operator",
    }


def _deployment(pool: WorkerPool, owner: Mapping[str, Any], installed: Installation) -> Json:
    template = pool.spec.template
    return _head(pool, owner, "apps/v1", "Deployment") | {
        "spec": {
            "selector": {"matchLabels": labels_of(pool.metadata.name)},
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": STARTUP_S + 60,
            # A new worker first, then an old one drains: the pool is never smaller than what was ordered.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": {**template.labels, **_all_labels(pool)},
                    "annotations": {
                        **template.annotations,
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(ADMIN_PORT),
                        **({CHECKSUM: installed.checksum} if installed.checksum else {}),
                    },
                },
                "spec": _pod(pool, installed),
            },
        }
    }


def _pod(pool: WorkerPool, installed: Installation) -> Json:
    spec, template = pool.spec, pool.spec.template
    node_selector = dict(template.node_selector)
    if spec.accelerator and spec.accelerator.product:
        node_selector[f"{spec.accelerator.resource}.product"] = spec.accelerator.product
    secrets = (*installed.pull_secrets, *(secret.name for secret in template.image_pull_secrets))
    pod: Json = {
        "serviceAccountName": installed.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": template.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels_of(pool.metadata.name)},
            }
        ],
        "containers": [_worker(pool, installed)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "nodeSelector": node_selector,
        "tolerations": [_json(toleration) for toleration in template.tolerations],
        "imagePullSecrets": [{"name": secret} for secret in secrets],
    }
    if template.priority_class_name:
        pod["priorityClassName"] = template.priority_class_name
    if spec.engine.kind == "Triton":
        triton = spec.engine.triton or Triton()
        # A sidecar: it starts before the worker and is stopped after it, so a draining worker keeps its engine.
        pod["initContainers"] = [_engine(pool, triton, installed)]
        pod["volumes"].append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": triton.shared_memory}})
        if spec.accelerator:
            pod["volumes"].append({"name": "cache", "emptyDir": {}})
        if volume := _models(triton):
            pod["volumes"].append(volume)
    return {field: value for field, value in pod.items() if value not in ({}, [])}


def _worker(pool: WorkerPool, installed: Installation) -> Json:
    spec = pool.spec
    environment = {
        "MILLRACE_COMMON__DRAIN_S": f"{spec.drain.deadline_seconds:g}",
        "MILLRACE_WORKER__POOL": pool.metadata.name,
        "MILLRACE_WORKER__ENGINE": spec.engine.kind.lower(),
        "MILLRACE_WORKER__FIRST_TOKEN_S": f"{spec.engine.first_token_seconds:g}",
        "MILLRACE_WORKER__STALL_S": f"{spec.engine.stall_seconds:g}",
    }
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - of the container
    if spec.engine.kind == "Triton":
        triton = spec.engine.triton or Triton()
        environment["MILLRACE_WORKER__TRITON_ADDRESS"] = f"127.0.0.1:{triton.grpc_port}"
        mounts += _model_mounts(triton)
    else:
        simulator = spec.engine.simulator or Simulator()
        environment |= {
            "MILLRACE_WORKER__SIMULATOR_TOKENS_PER_S": f"{simulator.tokens_per_second:g}",
            "MILLRACE_WORKER__SIMULATOR_PREFILL_TOKENS_PER_S": f"{simulator.prefill_tokens_per_second:g}",
            "MILLRACE_WORKER__SIMULATOR_SLOWDOWN": f"{simulator.slowdown:g}",
        }
    worker: Json = {
        "name": "worker",
        "image": installed.worker_image,
        "imagePullPolicy": installed.pull_policy,
        "env": [
            {"name": "MILLRACE_WORKER__NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *({"name": name, "value": value} for name, value in sorted(environment.items())),
        ],
        "ports": [{"name": "admin", "containerPort": ADMIN_PORT}],
        "startupProbe": _probe("/healthz", ADMIN_PORT) | {"failureThreshold": 30, "periodSeconds": 1},
        "readinessProbe": _probe("/readyz", ADMIN_PORT) | {"periodSeconds": 1},
        "livenessProbe": _probe("/healthz", ADMIN_PORT) | {"periodSeconds": 10, "failureThreshold": 6},
        "resources": _json(spec.worker.resources),
        "securityContext": _confined(),
        "volumeMounts": mounts,
    }
    sources = [{"configMapRef": {"name": installed.environment}}] if installed.environment else []
    sources += [{"secretRef": {"name": installed.secret}}] if installed.secret else []
    if sources:
        worker["envFrom"] = sources
    return worker


def _engine(pool: WorkerPool, triton: Triton, installed: Installation) -> Json:
    spec = pool.spec
    resources: Json = _json(spec.engine.resources)
    if accelerator := spec.accelerator:
        for side in ("requests", "limits"):
            resources[side] = {**resources.get(side, {}), accelerator.resource: str(accelerator.count)}
    return {
        "name": "engine",
        "image": triton.image or installed.engine_image,
        "imagePullPolicy": installed.pull_policy,
        "restartPolicy": "Always",
        "env": [
            {"name": "TRITON_MODEL_REPOSITORY", "value": triton.model_repository.path},
            {"name": "TRITON_HTTP_PORT", "value": str(triton.http_port)},
            {"name": "TRITON_GRPC_PORT", "value": str(triton.grpc_port)},
            {"name": "TRITON_METRICS_PORT", "value": str(triton.metrics_port)},
        ],
        "ports": [
            {"name": "http", "containerPort": triton.http_port},
            {"name": "grpc", "containerPort": triton.grpc_port},
            {"name": "metrics", "containerPort": triton.metrics_port},
        ],
        # A liveness probe alone would kill an engine that is still reading its weights.
        "startupProbe": _probe("/v2/health/ready", triton.http_port)
        | {"periodSeconds": STARTUP_PERIOD_S, "failureThreshold": STARTUP_S // STARTUP_PERIOD_S},
        "livenessProbe": _probe("/v2/health/live", triton.http_port) | {"periodSeconds": 10, "failureThreshold": 6},
        "resources": resources,
        "securityContext": _confined(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - of the container
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            *([{"name": "cache", "mountPath": CACHE}] if spec.accelerator else []),
            *_model_mounts(triton),
        ],
    }


def _budget(pool: WorkerPool, owner: Mapping[str, Any]) -> Json:
    """One at a time: whoever is evicted drains within its grace."""
    return _head(pool, owner, "policy/v1", "PodDisruptionBudget") | {
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels_of(pool.metadata.name)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        }
    }


def _service(pool: WorkerPool, owner: Mapping[str, Any]) -> Json:
    return _head(pool, owner, "v1", "Service") | {
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # a worker that drains is scraped too
            "selector": labels_of(pool.metadata.name),
            "ports": [{"name": "admin", "port": ADMIN_PORT, "targetPort": "admin"}],
        }
    }


def _models(triton: Triton) -> Json | None:
    repository = triton.model_repository
    if repository.persistent_volume_claim:
        claim = {"claimName": repository.persistent_volume_claim, "readOnly": True}
        return {"name": "models", "persistentVolumeClaim": claim}
    if repository.host_path:
        return {"name": "models", "hostPath": {"path": repository.host_path, "type": "Directory"}}
    return None


def _model_mounts(triton: Triton) -> list[Json]:
    if _models(triton) is None:
        return []
    return [{"name": "models", "mountPath": triton.model_repository.path, "readOnly": True}]


def _probe(path: str, port: int) -> Json:
    return {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 3}


def _confined() -> Json:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _json(part: Resources | Template | Any) -> Json:
    """A part of the spec as Kubernetes has it, without what is empty."""
    built: Json = msgspec.to_builtins(part)
    return {field: value for field, value in built.items() if value not in (None, {}, [])}
