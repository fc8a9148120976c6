"""What Kubernetes' controllers and kubelets do with Deployments, as far as the operator can see it: pods come, are ready, go."""

import asyncio
import itertools
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lightkube.types import PatchType

from millrace_operator.adapters.kube_cluster import _RESOURCES, KubeCluster, _asking
from millrace_operator.core.desired import POOL_LABEL
from millrace_operator.ports import ApiError

COST = "controller.kubernetes.io/pod-deletion-cost"


class Controllers:
    """Carries out Deployments in one namespace. Pods are ready `ready_s` after they came; `fate` makes them something else."""

    def __init__(self, cluster: KubeCluster, ready_s: float = 0.0) -> None:
        self._cluster = cluster
        self.ready_s = ready_s
        self.fate: Mapping[str, Any] | None = None  # the status of pods instead of readiness
        self.unready: set[str] = set()  # addresses of pods whose readiness probe fails
        self.deleted: list[str] = []
        self._numbers = itertools.count(1)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for deployment in await self._cluster.list("Deployment"):
                await self._reconcile(deployment)
            await asyncio.sleep(0.1)

    async def _reconcile(self, deployment: Mapping[str, Any]) -> None:
        pool = deployment["metadata"]["labels"][POOL_LABEL]
        pods = [p for p in await self._cluster.list("Pod") if p["metadata"]["labels"][POOL_LABEL] == pool]
        for _ in range(len(pods), deployment["spec"]["replicas"]):
            await self._make(deployment, pool)
        for pod in sorted(pods, key=_rank)[: max(len(pods) - deployment["spec"]["replicas"], 0)]:
            self.deleted.append(pod["metadata"]["name"])
            await self._cluster._client.delete(_RESOURCES["Pod"], pod["metadata"]["name"], namespace="default")
        for pod in pods:
            await self._tend(pod)

    async def _make(self, deployment: Mapping[str, Any], pool: str) -> None:
        number = next(self._numbers)
        metadata = {
            "name": f"{deployment['metadata']['name']}-{number}",
            "namespace": "default",
            "labels": deployment["spec"]["template"]["metadata"]["labels"],
            "annotations": {"address": f"10.0.0.{number}"},
        }
        spec = {"containers": [{"name": "worker", "image": "none"}], "terminationGracePeriodSeconds": 0}
        await self._cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    async def _tend(self, pod: Mapping[str, Any]) -> None:
        metadata, address = pod["metadata"], pod["metadata"]["annotations"]["address"]
        age = time.time() - datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()
        if self.fate is not None:
            wanted = dict(self.fate)
        elif age < self.ready_s:
            return
        else:
            ready = "False" if address in self.unready else "True"
            wanted = {"ready": ready}
        if pod["status"].get("message") == str(wanted):
            return
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        status: dict[str, Any] = wanted
        if "ready" in wanted:
            status = {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": wanted["ready"], "lastTransitionTime": now}],
                "containerStatuses": [
                    {
                        "name": "worker", "image": "none", "imageID": "", "ready": True, "restartCount": 0,
                        "state": {"running": {"startedAt": now}},
                    }
                ],
            }  # fmt: skip
        kube = self._cluster
        try:
            async with _asking():
                await kube._client.patch(
                    _RESOURCES["Pod"].Status,
                    metadata["name"],
                    {"status": {**status, "message": str(wanted)}},
                    namespace="default",
                    patch_type=PatchType.MERGE,
                )
        except ApiError as refused:
            if refused.status != 404:
                raise


def _rank(pod: Mapping[str, Any]) -> tuple[bool, float, str]:
    """Whom a ReplicaSet deletes first: not ready, then the lowest deletion cost, then the newest."""
    conditions = pod["status"].get("conditions", ())
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready, float(pod["metadata"].get("annotations", {}).get(COST, 0)), pod["metadata"]["name"]
