"""What a keeper tells of its pool, beyond what the conditions themselves are tested for: where it has that from."""

from dataclasses import dataclass, replace

import pytest

from millrace.dispatch.v1.dispatch_pb2 import PoolSignal
from millrace_operator.adapters.dispatcher_signals import DispatcherSignals
from millrace_operator.adapters.kube_cluster import WATCHED
from millrace_operator.core.conditions import LATELY_S
from millrace_operator.core.definitions import digests
from millrace_operator.core.desired import Installation
from millrace_operator.pool_keeper import PoolKeeper, World
from millrace_operator.pool_report import STATUS_S
from millrace_operator.ports import Signal
from millrace_operator.store import Store
from tests.support.memory_kube import MemoryKube

NOW = 1_764_072_000.0
KEY = ("default", "llama")
QUIET = Signal(age_s=0.0, epoch=1, waiting=0, work_s=0.0, busy=0, service_s=1.0, arrived=0, ended=100)


@dataclass
class Dispatcher:
    """What it says."""

    signal: Signal = QUIET

    def latest(self, pool):
        return self.signal


@pytest.fixture
def room():
    return Room()


class Room:
    """A keeper of one pool in a cluster in memory."""

    def __init__(self):
        self.kube, self.store = MemoryKube(NOW, slots=4, ready_s=0.0, come=lambda _: 0), Store(WATCHED)
        self.dispatcher = Dispatcher()
        installed = Installation(worker_image="worker", engine_image="engine")
        self.keeper = PoolKeeper(World(self.store, self.kube, self.kube, self.dispatcher, installed), KEY)
        spec = {"model": {"name": "m"}, "engine": {"kind": "Simulator"}}
        self.kube.put("WorkerPool", KEY, {"apiVersion": "millrace.dev/v1alpha1", "metadata": {}, "spec": spec})

    async def step(self):
        """Of the keeper, which sees everything."""
        for each in WATCHED:
            self.store.replace(each, self.kube.all(each))
        await self.keeper.step(self.kube.now)

    async def condition(self, kind):
        """Status and message after a step, once a status may be written again."""
        self.kube.now += STATUS_S
        await self.step()
        conditions = self.kube.all("WorkerPool")[0]["status"]["conditions"]
        return next(((c["status"], c["message"]) for c in conditions if c["type"] == kind), None)


async def test_no_word_of_the_clusters_schema_is_no_claim(room):
    """Then it is said whether it is ours, as it is now."""
    assert await room.condition("CRDOutdated") is None
    room.store.digests = digests()
    assert await room.condition("CRDOutdated") == ("False", "the cluster has this operator's schema")
    room.store.digests = digests() | {"Tenant": "of-last-year"}
    status, message = await room.condition("CRDOutdated")
    assert status == "True"
    assert "Tenant is of-last-year" in message
    room.store.digests = digests()
    assert (await room.condition("CRDOutdated"))[0] == "False"


async def test_a_spec_that_only_another_schema_allows_is_told_with_that(room):
    """A field that this operator does not know, written while the cluster's definitions are those of a later release."""
    pool = room.kube.all("WorkerPool")[0]
    room.kube.put("WorkerPool", KEY, pool | {"spec": pool["spec"] | {"invented": "later"}})
    room.store.digests = digests() | {"WorkerPool": "of-next-year"}
    assert (await room.condition("Accepted"))[0] == "False"
    assert (await room.condition("CRDOutdated"))[0] == "True"


async def test_a_pool_that_cannot_be_read_drains_and_goes_when_it_is_deleted(room):
    """Its finalizer holds nothing for ever."""
    await room.condition("Ready")
    pool = room.kube.all("WorkerPool")[0]
    room.kube.put("WorkerPool", KEY, pool | {"spec": pool["spec"] | {"invented": "later"}})
    room.kube.delete("WorkerPool", KEY)
    for _ in range(30):
        room.kube.tick()
        await room.step()
    assert room.kube.all("WorkerPool") == room.kube.all("Pod") == []


async def test_dead_letters_are_told_for_a_while_whoever_owns_the_pool(room):
    """A new owner knows of none; the operator remembers what the last one said."""
    assert (await room.condition("Poisoned"))[0] == "False"
    room.dispatcher.signal = replace(QUIET, dead=2, last_dead_at=room.kube.now)
    status, message = await room.condition("Poisoned")
    assert status == "True"
    assert message.startswith("2 tasks were given up ")
    room.dispatcher.signal = replace(QUIET, epoch=2)
    assert await room.condition("Poisoned") == ("True", message)
    room.kube.now += LATELY_S
    assert (await room.condition("Poisoned"))[0] == "False"


def test_a_dispatchers_word_is_read_with_its_dead_letters():
    """None given up: there is no instant."""

    class Listener:
        signals, epochs = {"llama": PoolSignal(waiting=3)}, {"llama": 7}

        def age_s(self, pool):
            return 0.5

    listener = Listener()
    said = DispatcherSignals(listener).latest("llama")
    assert (said.epoch, said.waiting, said.dead, said.last_dead_at) == (7, 3, 0, float("-inf"))
    listener.signals["llama"].dead = 2
    listener.signals["llama"].last_dead_at.FromMilliseconds(1_764_072_000_500)
    said = DispatcherSignals(listener).latest("llama")
    assert (said.dead, said.last_dead_at) == (2, NOW + 0.5)
