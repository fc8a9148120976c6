"""WorkerPools on a real API server: made, scaled by work, drained, told about; controllers and workers are played."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from millrace_operator import pools
from millrace_operator.adapters import watching
from millrace_operator.adapters.kube_cluster import WATCHED, KubeCluster
from millrace_operator.adapters.watching import watch
from millrace_operator.core.definitions import DIGEST, GROUP, VERSION, digests
from millrace_operator.core.desired import Installation
from millrace_operator.core.draining import MARK
from millrace_operator.core.leaving import QUIET_S
from millrace_operator.pool_keeper import World
from millrace_operator.pools import Pools
from millrace_operator.ports import Signal
from millrace_operator.store import Store
from tests.support import waiting
from tests.support.api_server import ApiServer
from tests.support.kube_controllers import Controllers

eventually = partial(waiting.eventually, within_s=20.0, every_s=0.02)
QUIET = Signal(age_s=0.0, epoch=1, waiting=0, work_s=0.0, busy=0, service_s=1.0, arrived=0, ended=100)
NUMBERS = itertools.count(1)


@dataclass
class Workers:
    """What workers answer at their admin ports."""

    in_flight: dict[str, int] = field(default_factory=dict)
    draining: set[str] = field(default_factory=set)

    async def look(self, address: str) -> int | None:
        return self.in_flight.get(address, 0)

    async def begin(self, address: str) -> int | None:
        self.draining.add(address)
        return self.in_flight.get(address, 0)

    async def end(self, address: str) -> int | None:
        self.draining.discard(address)
        return self.in_flight.get(address, 0)


@dataclass
class Dispatcher:
    """What the dispatcher says."""

    signal: Signal | None = QUIET

    def latest(self, pool: str) -> Signal | None:
        return self.signal


@dataclass
class Room:
    """An operator, what it sees and what it drives."""

    server: ApiServer
    cluster: KubeCluster
    store: Store
    pools: Pools
    controllers: Controllers
    workers: Workers
    dispatcher: Dispatcher
    name: str

    def pool(self, **scaling):
        spec = {
            "model": {"name": "m"},
            "engine": {"kind": "Simulator"},
            "concurrency": {"slots": 4},
            "scaling": {"minReplicas": 1, "maxReplicas": 8, **scaling},
        }
        metadata = {"name": self.name, "namespace": "default"}
        self.apply({"apiVersion": f"{GROUP}/{VERSION}", "kind": "WorkerPool", "metadata": metadata, "spec": spec})

    def apply(self, manifest):
        self.server.kubectl("apply", "-f", "-", manifest=manifest)

    def scale(self, replicas):
        self.server.kubectl("scale", f"wp/{self.name}", f"--replicas={replicas}")

    @property
    def spec_replicas(self):
        pool = self.store.get("WorkerPool", ("default", self.name))
        return pool["spec"]["replicas"] if pool else None

    @property
    def pods(self):
        return [p for p in self.store.all("Pod").values() if p["metadata"]["labels"]["millrace.dev/pool"] == self.name]

    @property
    def ready(self):
        return len([p for p in self.pods if any(c["status"] == "True" for c in p["status"].get("conditions", ()))])

    @property
    def marked(self):
        return [p for p in self.pods if MARK in p["metadata"].get("annotations", {})]

    def status(self, kind=None):
        status = (self.store.get("WorkerPool", ("default", self.name)) or {}).get("status", {})
        if kind is None:
            return status
        return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})

    def address(self, pod):
        return pod["metadata"]["annotations"]["address"]


@asynccontextmanager
async def operator(server, leading=lambda: True, **rest):
    """One more operator over the same cluster."""
    store, workers, dispatcher = (
        Store(WATCHED),
        rest.get("workers") or Workers(),
        rest.get("dispatcher") or Dispatcher(),
    )
    async with KubeCluster("default") as cluster:
        installed = Installation(worker_image="worker", engine_image="engine")
        pools = Pools(World(store, cluster, workers, dispatcher, installed), leading)
        controllers = rest.get("controllers") or Controllers(cluster)
        work = [asyncio.create_task(each) for each in (watch(store, cluster, "default"), pools.run())]
        if "controllers" not in rest:
            work.append(asyncio.create_task(controllers.run()))
        try:
            yield Room(server, cluster, store, pools, controllers, workers, dispatcher, rest.get("name", ""))
        finally:
            for task in work:
                task.cancel()
            for ended in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended


@pytest.fixture
async def room(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    if "serviceaccount/default" not in cluster.kubectl("get", "serviceaccounts", "-o", "name"):
        cluster.kubectl("create", "serviceaccount", "default")
    name = f"pool{next(NUMBERS)}"
    async with operator(cluster, name=name) as it:
        yield it
        cluster.kubectl("patch", "wp", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}', fails=None)
        cluster.kubectl("delete", "wp,deploy,pods", "--all", "--wait=false")


async def test_a_pool_becomes_a_deployment_a_budget_and_a_service_of_its_own(room: Room) -> None:
    """All owned by the pool, the pods confined, the replicas those of the pool; the status says Ready."""
    room.pool()
    await eventually(lambda: room.status("Ready").get("status") == "True")
    for kind in ("deployment", "poddisruptionbudget", "service"):
        made = room.server.get(kind, f"pool-{room.name}")
        assert made["metadata"]["ownerReferences"][0]["name"] == room.name
    deployment = room.server.get("deployment", f"pool-{room.name}")
    assert deployment["spec"]["replicas"] == 1
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    status = room.status()
    assert (status["readyReplicas"], status["desiredReplicas"]) == (1, 1)
    assert status["selector"] == f"millrace.dev/pool={room.name}"


async def test_the_first_task_of_a_pool_at_zero_starts_a_worker_at_once(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale is ordered at the dispatcher's word, without waiting for a tick."""
    room.dispatcher.signal = QUIET
    room.pool(minReplicas=0, maxReplicas=4, idleSeconds=0, hold={"mode": "Fixed", "seconds": 0})
    await eventually(lambda: room.spec_replicas == 0)
    await eventually(lambda: not room.pods)
    # A status that is written wakes the operator as well; this one is the last.
    await eventually(lambda: room.status().get("replicas") == 0 and room.status("Ready").get("reason") == "AtZero")
    monkeypatch.setattr(pools, "TICK_S", 60.0)
    ticked_at = room.pools.stepped_at
    await eventually(lambda: room.pools.stepped_at > ticked_at)  # the last one of a second
    room.dispatcher.signal = replace(QUIET, waiting=3, work_s=3.0, arrived=3)
    await asyncio.sleep(0.2)
    assert room.spec_replicas == 0
    room.pools.signalled(room.name)
    await eventually(lambda: room.spec_replicas == 1)
    events = ("get", "events", "-o", "custom-columns=R:.reason,M:.message")
    await eventually(lambda: "FromZero" in room.server.kubectl(*events))


async def test_work_scales_up_and_its_end_drains_down(room: Room) -> None:
    """Up to the bound with a sentence that says why; down only once the workers that go have nothing left."""
    room.dispatcher.signal = QUIET
    room.pool(maxReplicas=3, hold={"mode": "Fixed", "seconds": 0})
    await eventually(lambda: room.ready == 1)
    room.dispatcher.signal = replace(QUIET, waiting=400, work_s=400.0, busy=4, arrived=404)
    await eventually(lambda: room.ready == 3)
    assert "-> 3" in room.status()["lastDecision"]["message"]
    await eventually(lambda: room.status("ScalingLimited").get("reason") == "AtMaximum")
    for pod in room.pods:
        room.workers.in_flight[room.address(pod)] = 2
    room.scale(1)
    room.server.kubectl("patch", "wp", room.name, "--type=merge", "-p", '{"spec":{"scaling":{"mode":"Manual"}}}')
    await eventually(lambda: len(room.marked) == 2)
    await eventually(lambda: room.workers.draining == {room.address(pod) for pod in room.marked})
    await asyncio.sleep(1.5)
    assert len(room.pods) == 3
    leaving = {pod["metadata"]["name"] for pod in room.marked}
    for pod in room.marked:
        room.workers.in_flight[room.address(pod)] = 0
    await eventually(lambda: len(room.pods) == 1)
    assert leaving <= set(room.controllers.deleted)


async def test_scaling_up_takes_back_who_drains_before_it_orders(room: Room) -> None:
    """A warm worker is worth more than a cold one."""
    room.pool(mode="Manual")
    room.scale(3)
    await eventually(lambda: room.ready == 3)
    there = {pod["metadata"]["name"] for pod in room.pods}
    for pod in room.pods:
        room.workers.in_flight[room.address(pod)] = 1
    room.scale(1)
    await eventually(lambda: len(room.marked) == 2)
    room.scale(3)
    await eventually(lambda: not room.marked)
    await eventually(lambda: not room.workers.draining)
    assert {pod["metadata"]["name"] for pod in room.pods} == there


async def test_a_new_operator_goes_on_with_the_drains_of_the_last_one(room: Room) -> None:
    """The marks are on the pods: nobody is forgotten, nobody else is chosen, nothing is scaled twice."""
    room.pool(mode="Manual")
    room.scale(4)
    await eventually(lambda: room.ready == 4)
    for pod in room.pods:
        room.workers.in_flight[room.address(pod)] = 1
    room.scale(2)
    await eventually(lambda: len(room.marked) == 2)
    leaving = {pod["metadata"]["name"] for pod in room.marked}
    room.pools._leading = lambda: False
    again = Workers(in_flight=room.workers.in_flight)
    async with operator(room.server, workers=again, controllers=room.controllers, name=room.name) as second:
        await eventually(lambda: len(again.draining) == 2)
        await asyncio.sleep(1.2)
        assert {pod["metadata"]["name"] for pod in second.marked} == leaving
        for pod in second.marked:
            again.in_flight[room.address(pod)] = 0
        await eventually(lambda: len(second.pods) == 2)
        own = {name for name in room.controllers.deleted if name.startswith(f"pool-{room.name}-")}
        assert own == leaving
        await asyncio.sleep(1.5)
        assert (len(second.pods), second.spec_replicas) == (2, 2)


async def test_a_deleted_pool_drains_before_it_goes(room: Room) -> None:
    """Its finalizer waits for its queue, and then for the last task."""
    room.pool()
    await eventually(lambda: room.ready == 1)
    (pod,) = room.pods
    room.workers.in_flight[room.address(pod)] = 1
    room.dispatcher.signal = replace(QUIET, waiting=1, work_s=1.0, busy=1, arrived=2)
    room.server.kubectl("delete", "wp", room.name, "--wait=false")
    await eventually(lambda: "what waits is worked off first" in room.status("Ready").get("message", ""))
    await asyncio.sleep(QUIET_S + 1)
    assert not room.marked
    room.dispatcher.signal = QUIET
    await eventually(lambda: len(room.marked) == 1)
    await eventually(lambda: room.status("Ready").get("reason") == "Deleting")
    assert len(room.pods) == 1
    room.workers.in_flight[room.address(pod)] = 0
    await eventually(lambda: room.store.get("WorkerPool", ("default", room.name)) is None)


async def test_a_pool_that_cannot_start_says_why(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence with Kubernetes' own words, in the condition Ready and as an Event."""
    monkeypatch.setattr("millrace_operator.core.troubles.SHOW_S", 0.5)
    monkeypatch.setattr("millrace_operator.pool_report.STATUS_S", 0.1)
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    container = {"name": "worker", "image": "none", "imageID": "", "ready": False, "restartCount": 0, "state": waiting}
    room.controllers.fate = {"phase": "Pending", "containerStatuses": [container]}
    room.pool()
    await eventually(lambda: room.status("Ready").get("reason") == "ImagePullFailed")
    assert "no such image" in room.status("Ready")["message"]
    events = ("get", "events", "-o", "custom-columns=T:.type,R:.reason,M:.message")
    await eventually(lambda: "ImagePullFailed" in room.server.kubectl(*events))


@pytest.fixture
def _applies_often(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHOW_S", "CLEAR_S"):
        monkeypatch.setattr(f"millrace_operator.core.troubles.{name}", 0.5)
    monkeypatch.setattr("millrace_operator.pool_report.STATUS_S", 0.1)
    for name in ("APPLY_S", "REFUSED_S"):
        monkeypatch.setattr(f"millrace_operator.pool_keeper.{name}", 0.2)


@pytest.mark.usefixtures("_applies_often")
async def test_a_deployment_that_somebody_else_changed_is_left_to_them_and_scaled_all_the_same(room: Room) -> None:
    """`kubectl set image` wins, and the pool says so until it is taken back."""
    room.pool()
    await eventually(lambda: room.ready == 1)
    room.server.kubectl("set", "image", f"deployment/pool-{room.name}", "worker=other")
    await eventually(lambda: "somebody else has set fields" in room.status("Ready").get("message", ""))
    assert "kubectl" in room.status("Ready")["message"]
    assert room.status("Ready")["status"] == "True"
    room.dispatcher.signal = replace(QUIET, waiting=400, work_s=400.0, arrived=400)
    await eventually(lambda: room.ready == 8)
    room.server.kubectl("set", "image", f"deployment/pool-{room.name}", "worker=worker")
    await eventually(lambda: "somebody" not in room.status("Ready")["message"])


@pytest.mark.usefixtures("_applies_often")
async def test_a_quota_that_leaves_no_room_for_a_pools_objects_is_told(room: Room) -> None:
    """In the API server's words, and no longer than it does."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}}
    room.apply(quota | {"spec": {"hard": {"count/deployments.apps": "0"}}})
    used = '{"status":{"hard":{"count/deployments.apps":"0"},"used":{"count/deployments.apps":"0"}}}'
    room.server.kubectl("patch", "resourcequota", "few", "--subresource=status", "--type=merge", "-p", used)
    try:
        room.pool()
        await eventually(lambda: room.status("Ready").get("reason") == "QuotaExceeded")
        assert "exceeded quota: few" in room.status("Ready")["message"]
    finally:
        room.server.kubectl("delete", "resourcequota", "few")
    await eventually(lambda: room.status("Ready").get("status") == "True")


@pytest.fixture
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "RELIST_S", 0.2)
    monkeypatch.setattr("millrace_operator.pool_report.STATUS_S", 0.1)


@pytest.mark.usefixtures("_looks_often")
async def test_a_pool_says_that_the_cluster_has_another_schema(room: Room) -> None:
    """Of whatever kind, with the way out, and no longer than it has."""
    room.pool()
    await eventually(lambda: room.status("CRDOutdated").get("reason") == "SchemaCurrent")
    own = digests()["Tenant"]
    try:
        room.server.kubectl("annotate", "--overwrite", "crd", f"tenants.{GROUP}", f"{DIGEST}=of-last-year")
        await eventually(lambda: room.status("CRDOutdated").get("status") == "True")
        told = room.status("CRDOutdated")
        assert told["reason"] == "SchemaDiffers"
        assert told["message"].startswith(f"the cluster's Tenant is of-last-year, this operator's {own}; install ")
    finally:
        room.server.kubectl("annotate", "--overwrite", "crd", f"tenants.{GROUP}", f"{DIGEST}={own}")
    await eventually(lambda: room.status("CRDOutdated").get("status") == "False")


async def test_a_standby_changes_nothing(room: Room) -> None:
    """It looks, and only that."""
    room.pools._leading = lambda: False
    room.pool()
    await eventually(lambda: room.store.get("WorkerPool", ("default", room.name)))
    await asyncio.sleep(1.5)
    assert room.store.get("Deployment", ("default", f"pool-{room.name}")) is None
    assert not room.store.get("WorkerPool", ("default", room.name))["metadata"].get("finalizers")


async def test_a_paused_pool_stays_as_it_is(room: Room) -> None:
    """Work or no work, and whatever is written to its spec."""
    room.pool()
    await eventually(lambda: room.ready == 1)
    room.pool(mode="Paused")
    await eventually(lambda: room.status("ScalingActive").get("reason") == "Paused")
    room.dispatcher.signal = replace(QUIET, waiting=400, work_s=400.0, arrived=400)
    room.scale(3)
    await asyncio.sleep(1.5)
    assert len(room.pods) == 1
