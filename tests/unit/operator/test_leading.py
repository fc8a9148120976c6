"""Who does not lead does not write: at the turn of leadership, in the middle of a step, and at the end."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from millrace_operator import leaders_cluster, pools
from millrace_operator.adapters.kube_cluster import WATCHED
from millrace_operator.core.decide import decide
from millrace_operator.core.desired import Installation
from millrace_operator.core.selection import Verdict
from millrace_operator.core.vocabulary import Learned, Memory, Observation, Policy
from millrace_operator.leaders_cluster import LeadersCluster
from millrace_operator.leadership import DEADLINE_S, DURATION_S, Leadership
from millrace_operator.pool_keeper import World
from millrace_operator.pools import Pools
from millrace_operator.ports import ApiError, Cluster
from millrace_operator.store import Store
from services.chassis.background import call_off
from services.chassis.clock import now
from services.chassis.metrics import REGISTRY
from tests.support.memory_kube import MemoryKube, at
from tests.support.waiting import eventually

KEY = ("default", "llama")
POOL = {
    "apiVersion": "millrace.dev/v1alpha1",
    "metadata": {},
    "spec": {"model": {"name": "m"}, "engine": {"kind": "Simulator"}},
}
READS = {"list", "get", "digests"}
WRITES = {
    "create": ({"kind": "Event"},),
    "replace": ({"kind": "Lease"},),
    "apply": ({"kind": "Service"},),
    "apply_status": ("WorkerPool", KEY, {}),
    "patch": ("Pod", KEY, {}),
    "scale": ("Deployment", KEY, 1),
    "event": ({}, "Why", "what"),
}


@dataclass
class Server:
    """Takes every call down; with `stuck` a write is never answered."""

    calls: list[str] = field(default_factory=list)
    stuck: bool = False

    def __getattr__(self, name):
        async def call(*what, **how):
            self.calls.append(name)
            if self.stuck:
                await asyncio.Event().wait()

        return call


def test_the_leaders_cluster_has_every_verb():
    """So that none is forgotten here or there."""
    verbs = {name for name in vars(Cluster) if not name.startswith("_")}
    assert verbs == READS | WRITES.keys()


@pytest.mark.parametrize("verb", WRITES)
async def test_a_write_is_refused_unless_this_process_leads(verb):
    """Before it is sent. Another one may lead already."""
    server, leads = Server(), False
    cluster = LeadersCluster(server, lambda: leads)
    with pytest.raises(ApiError) as refused:
        await getattr(cluster, verb)(*WRITES[verb])
    assert (refused.value.status, server.calls) == (0, [])
    leads = True
    await getattr(cluster, verb)(*WRITES[verb])
    assert server.calls == [verb]


async def test_who_stands_by_may_read():
    """Its caches stay warm."""
    server = Server()
    cluster = LeadersCluster(server, lambda: False)
    await cluster.list("Pod")
    await cluster.get("Pod", KEY)
    await cluster.digests()
    assert server.calls == ["list", "get", "digests"]


async def test_a_write_is_over_before_anybody_else_may_lead(monkeypatch):
    """It may begin at the last instant of leading, so it has the time from there to the end of the lease."""
    assert leaders_cluster.WRITE_S <= DURATION_S - DEADLINE_S
    monkeypatch.setattr(leaders_cluster, "WRITE_S", 0.01)
    with pytest.raises(ApiError) as refused:
        await LeadersCluster(Server(stuck=True), lambda: True).scale("Deployment", KEY, 3)
    assert refused.value.status == 0


# -- pools --------------------------------------------------------------------------------------------------------------


class Room:
    """Pools over a cluster in memory, whose calls can be held up."""

    def __init__(self):
        self.kube, self.store, self.leads = (
            MemoryKube(now(), slots=4, ready_s=0.0, come=lambda _: 0),
            Store(WATCHED),
            True,
        )
        self.held: asyncio.Event | None = None
        self.entered = 0
        installed = Installation(worker_image="worker", engine_image="engine")
        self.pools = Pools(World(self.store, self, self.kube, self.kube, installed), lambda: self.leads)
        self.kube.put("WorkerPool", KEY, POOL)

    def __getattr__(self, name):
        async def call(*what, **how):
            if self.held:
                self.entered += 1
                await self.held.wait()
            return await getattr(self.kube, name)(*what, **how)

        return call

    def look(self):
        for kind in WATCHED:
            self.store.replace(kind, self.kube.all(kind))

    @property
    def status(self):
        return self.kube.all("WorkerPool")[0].get("status", {})

    @property
    def keeper(self):
        return self.pools._keepers[KEY]


@asynccontextmanager
async def running(room):
    room.look()
    task = asyncio.create_task(room.pools.run())
    try:
        yield task
    finally:
        await call_off([task])


@pytest.fixture
def room(monkeypatch):
    monkeypatch.setattr(pools, "TICK_S", 0.01)
    monkeypatch.setattr("millrace_operator.pool_report.STATUS_S", 0.0)
    return Room()


async def test_no_step_runs_any_more_once_the_pools_are_called_off(room):
    """The lease is given up after that, and the next one acts."""
    room.held = asyncio.Event()
    async with running(room) as task:
        await eventually(lambda: room.entered)
        await call_off([task])
        room.held.set()
        await asyncio.sleep(0.05)
    assert not room.kube.all("Deployment")
    assert not room.kube.all("WorkerPool")[0]["metadata"].get("finalizers")


async def test_a_step_is_called_off_when_another_one_may_lead(room):
    """It is in the middle of its calls."""
    room.held = asyncio.Event()
    async with running(room):
        await eventually(lambda: room.entered)
        room.leads = False
        await eventually(lambda: not room.pools._running)
        room.held.set()
        await asyncio.sleep(0.05)
        assert not room.kube.all("Deployment")


async def test_who_leads_again_goes_on_from_what_its_successor_left(room):
    """With its decision in the status and a memory that holds what is there; only the verdicts of the snapshot stay."""
    room.pools.verdict(KEY, Verdict(1, 1))
    async with running(room):
        await eventually(lambda: room.look() or room.status)
        decision = decide(Policy(), Observation(replicas=0), Learned(1.0, 1.0), Memory(), now())
        await room.keeper.report.decided(POOL, decision, now())
        await eventually(lambda: room.look() or room.status.get("lastDecision", {}).get("to") == 1)
        first = room.keeper
        room.leads = False
        await eventually(lambda: room.keeper is not first and not room.pools._running)
        told = {"lastDecision": room.status["lastDecision"] | {"from": 1, "to": 7}, "replicas": 99}
        await room.kube.apply_status("WorkerPool", KEY, room.status | told)
        room.look()
        second = room.keeper
        room.leads = True
        await eventually(lambda: room.keeper is not second)
        await eventually(lambda: room.look() or room.status["replicas"] != 99)
        assert room.status["lastDecision"]["to"] == 7
        assert room.keeper.report.verdict == Verdict(1, 1)


async def test_a_standby_knows_which_pools_take_tasks_from_what_the_leader_told(room):
    """So that the routes of a pool that serves are not told to have no workers when the leader changes."""
    room.leads = False
    room.pools.verdict(KEY, Verdict(1, 1))
    assert not room.pools.ready("llama")
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "message": "", "lastTransitionTime": at(now())}
    await room.kube.apply_status("WorkerPool", KEY, {"conditions": [ready]})
    room.look()
    assert room.pools.ready("llama")


async def test_only_who_leads_tells_of_the_workers_of_pools_that_are_there(room):
    """Two operators would be added up, and a pool that is gone would stay on every dashboard."""

    def told():
        room.look()
        states = ("desired", "ready")
        return [
            REGISTRY.get_sample_value("millrace_operator_replicas", {"pool": "llama", "state": it}) for it in states
        ]

    async with running(room):
        await eventually(lambda: told() == [1.0, 0.0] and room.kube.all("Deployment"))
        room.kube.tick()
        room.kube.tick()
        await eventually(lambda: told() == [1.0, 1.0])
        room.leads = False
        await eventually(lambda: told() == [None, None])
        room.leads = True
        await eventually(lambda: told() == [1.0, 1.0])
        del room.kube.objects["WorkerPool"][KEY]
        await eventually(lambda: told() == [None, None])


# -- the lease ----------------------------------------------------------------------------------------------------------


class Leases:
    """A lease in memory."""

    def __init__(self):
        self.lease, self.version = None, 0

    async def get(self, kind, key):
        return self.lease

    async def create(self, lease):
        return await self.replace(lease)

    async def replace(self, lease):
        if self.lease and lease["metadata"].get("resourceVersion") != str(self.version):
            raise ApiError(409, "modified")
        self.version += 1
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(self.version)}}
        return self.lease

    @property
    def holder(self):
        return self.lease and self.lease["spec"]["holderIdentity"]


async def test_the_lease_is_given_up_when_everybody_who_acts_has_ended():
    """Both are called off together, as at a stop; who acts takes its time."""
    leases, ended = Leases(), asyncio.Event()

    async def act():
        try:
            await asyncio.Event().wait()
        finally:
            await ended.wait()

    leadership = Leadership(leases, "default", "one")
    leading, acting = asyncio.create_task(leadership.run()), asyncio.create_task(act())
    leadership.acts(acting)
    await eventually(lambda: leadership.leading)
    stop = asyncio.create_task(call_off([leading, acting]))
    await asyncio.sleep(0.05)
    assert leases.holder == "one"
    ended.set()
    await stop
    assert leases.holder == ""


async def test_a_leadership_that_dies_ends_those_who_act():
    """Nobody else would: the service stops when it has ended."""
    leases = Leases()
    leadership = Leadership(leases, "default", "one")
    leading, acting = asyncio.create_task(leadership.run()), asyncio.create_task(asyncio.Event().wait())
    leadership.acts(acting)
    await eventually(lambda: leadership.leading)
    await call_off([leading])
    assert acting.cancelled()
    assert leases.holder == ""


async def test_a_clock_that_is_wrong_steals_no_lease(monkeypatch):
    """The time in a lease is its holder's; how long it stands is measured here, from the first sight of each renewal."""
    leases = Leases()
    first, second = Leadership(leases, "default", "first"), Leadership(leases, "default", "second")
    task = asyncio.create_task(first.run())
    await eventually(lambda: first.leading)
    for _ in range(3):
        lease = {**leases.lease, "spec": {**leases.lease["spec"], "renewTime": "2001-01-01T00:00:00.000000Z"}}
        await leases.replace(lease)
        await second._try()
        assert leases.holder == "first"
        await leases.replace({**leases.lease, "spec": {**lease["spec"], "renewTime": "2001-01-01T00:00:02.000000Z"}})
        await second._try()
        assert leases.holder == "first"
    await call_off([task])
