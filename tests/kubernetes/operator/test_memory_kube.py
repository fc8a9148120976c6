"""The cluster in memory, on which an operator is ended at every await, does what a real API server does with its writes."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from millrace_operator.adapters.kube_cluster import KubeCluster
from millrace_operator.core.definitions import GROUP, VERSION
from millrace_operator.ports import SCALER, ApiError, Cluster
from tests.support.api_server import ApiServer
from tests.support.memory_kube import MemoryKube

POOL = ("default", "contract")
DEPLOYMENT = ("default", "pool-contract")
GONE = ("default", "nobody")
FINALIZER = "millrace.dev/drain"
POD = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "worker", "image": "none"}]}}


@dataclass
class Room:
    """One of both, with a way to delete as people do."""

    cluster: Cluster
    delete: Callable[[], Any]

    async def pool(self) -> Any:
        return await self.cluster.get("WorkerPool", POOL)


def manifest(kind: str, key: tuple[str, str], api_version: str, **rest: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"namespace": key[0], "name": key[1]}, **rest}


def deployment(**spec: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"a": "b"}}
    return manifest("Deployment", DEPLOYMENT, "apps/v1", spec={"selector": selector, "template": POD, **spec})


@pytest.fixture(params=["memory", "server"])
async def room(request: pytest.FixtureRequest) -> AsyncIterator[Room]:
    spec = {"model": {"name": "m"}, "engine": {"kind": "Simulator"}, "replicas": 1, "scaling": {"maxReplicas": 9}}
    pool = manifest("WorkerPool", POOL, f"{GROUP}/{VERSION}", spec=spec)
    if request.param == "memory":
        kube = MemoryKube(1_764_072_000.0, slots=1, ready_s=0.0, come=lambda _: 0)
        kube.put("WorkerPool", POOL, pool)
        yield Room(kube, lambda: kube.delete("WorkerPool", POOL))
        return
    server: ApiServer = request.getfixturevalue("cluster")
    request.getfixturevalue("monkeypatch").setenv("KUBECONFIG", str(server.kubeconfig))
    async with KubeCluster("default") as cluster:
        await cluster.create(pool)
        yield Room(cluster, lambda: server.kubectl("delete", "wp", POOL[1], "--wait=false"))
        await cluster.patch("WorkerPool", POOL, {"metadata": {"finalizers": None}})
        server.kubectl("delete", "--ignore-not-found", "wp/contract", "deploy/pool-contract")


async def test_replicas_stay_whose_they_are(room: Room) -> None:
    """A template that is applied without them keeps them, and a second time it changes nothing at all."""
    await room.cluster.apply(deployment(replicas=3), manager=SCALER)
    made = await room.cluster.apply(deployment())
    assert made["spec"]["replicas"] == 3
    again = await room.cluster.apply(deployment())
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    await room.cluster.scale("Deployment", DEPLOYMENT, 5)
    assert (await room.cluster.apply(deployment()))["spec"]["replicas"] == 5


async def test_a_scaled_pool_has_another_generation_and_a_told_one_has_not(room: Room) -> None:
    """The status is not the spec."""
    before = await room.pool()
    await room.cluster.apply_status("WorkerPool", POOL, {"replicas": 2})
    told = await room.pool()
    assert (told["status"]["replicas"], told["metadata"]["generation"]) == (2, before["metadata"]["generation"])
    await room.cluster.scale("WorkerPool", POOL, 4)
    scaled = await room.pool()
    assert (scaled["spec"]["replicas"], scaled["status"]["replicas"]) == (4, 2)
    assert scaled["metadata"]["generation"] == before["metadata"]["generation"] + 1


async def test_a_patch_of_what_changed_meanwhile_is_refused(room: Room) -> None:
    """If it says what it was made from; null takes a field away."""
    seen = (await room.pool())["metadata"]["resourceVersion"]
    await room.cluster.patch("WorkerPool", POOL, {"metadata": {"annotations": {"a": "1", "b": "2"}}})
    with pytest.raises(ApiError) as refused:
        await room.cluster.patch("WorkerPool", POOL, {"metadata": {"finalizers": [], "resourceVersion": seen}})
    assert refused.value.status == 409
    await room.cluster.patch("WorkerPool", POOL, {"metadata": {"annotations": {"a": None}}})
    annotations = (await room.pool())["metadata"]["annotations"]
    assert ("a" in annotations, annotations["b"]) == (False, "2")


async def test_a_finalizer_holds_what_is_deleted(room: Room) -> None:
    """Until it is taken away; deleting again or writing a status changes nothing of that."""
    await room.cluster.patch("WorkerPool", POOL, {"metadata": {"finalizers": [FINALIZER]}})
    room.delete()
    await room.cluster.apply_status("WorkerPool", POOL, {"replicas": 1})
    held = await room.pool()
    assert "deletionTimestamp" in held["metadata"]
    version = held["metadata"]["resourceVersion"]
    await room.cluster.patch("WorkerPool", POOL, {"metadata": {"finalizers": [], "resourceVersion": version}})
    assert await room.pool() is None


async def test_whoever_is_not_there_is_no_error(room: Room) -> None:
    """It may have gone since the watch told of it."""
    await room.cluster.patch("Pod", GONE, {"metadata": {"annotations": {"a": "b"}}})
    await room.cluster.scale("Deployment", GONE, 2)
    await room.cluster.apply_status("WorkerPool", GONE, {"replicas": 1})
    for kind in ("Pod", "Deployment", "WorkerPool"):
        assert await room.cluster.get(kind, GONE) is None
