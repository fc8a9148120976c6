"""What a keeper tells of its pool, beyond what the conditions themselves are tested for: where it has that from."""

import contextlib
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from millrace.dispatch.v1.dispatch_pb2 import PoolSignal
from millrace_operator.adapters.dispatcher_signals import DispatcherSignals
from millrace_operator.adapters.kube_cluster import WATCHED
from millrace_operator.core.conditions import LATELY_S
from millrace_operator.core.decide import clock
from millrace_operator.core.definitions import digests
from millrace_operator.core.desired import Installation
from millrace_operator.core.draining import MARK
from millrace_operator.core.leaving import LONGEST_S
from millrace_operator.pool_keeper import APPLY_S, PoolKeeper, World
from millrace_operator.pool_report import STATUS_S
from millrace_operator.ports import ApiError, Signal
from millrace_operator.store import Store
from services.chassis.metrics import REGISTRY
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
        self.refuses: dict[str, ApiError] = {}  # by kind and verb
        self.asked: Counter[str] = Counter()
        self.events: list[tuple[str, str]] = []
        installed = Installation(worker_image="worker", engine_image="engine")
        self.keeper = PoolKeeper(World(self.store, self, self.kube, self.dispatcher, installed), KEY)
        spec = {"model": {"name": "m"}, "engine": {"kind": "Simulator"}}
        self.kube.put("WorkerPool", KEY, {"apiVersion": "millrace.dev/v1alpha1", "metadata": {}, "spec": spec})

    def __getattr__(self, verb):
        """A call of the API server, which may refuse it."""

        async def call(*what, **how):
            kind = what[0]["kind"] if isinstance(what[0], dict) else what[0]
            self.asked[f"{verb} {kind}"] += 1
            if refused := self.refuses.get(f"{verb} {kind}"):
                raise refused
            return await getattr(self.kube, verb)(*what, **how)

        return call

    async def event(self, about, reason, message, *, warning=False):
        """Take it down."""
        self.events.append((reason, message))

    async def step(self):
        """Of the keeper, which sees everything."""
        for each in WATCHED:
            self.store.replace(each, self.kube.all(each))
        await self.keeper.step(self.kube.now)

    async def live(self, seconds):
        """Step by step; a refusal ends none of them too early."""
        for _ in range(seconds):
            self.kube.tick()
            with contextlib.suppress(ApiError):
                await self.step()

    async def condition(self, kind):
        """Status and message after a step, once a status may be written again."""
        self.kube.now += STATUS_S
        with contextlib.suppress(ApiError):
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


async def test_a_pool_that_cannot_be_read_goes_on_telling_what_can_be_seen(room):
    """An autoscaler reads the selector and the replicas; its workers serve, or do not."""
    await room.live(10)
    pool = room.kube.all("WorkerPool")[0]
    before = pool["status"]
    assert (before["replicas"], before["selector"]) == (1, "millrace.dev/pool=llama")
    room.kube.put("WorkerPool", KEY, pool | {"spec": pool["spec"] | {"invented": "later"}})
    room.kube.now += STATUS_S
    await room.live(1)
    after = room.kube.all("WorkerPool")[0]["status"]
    changed = {"conditions", "observedGeneration"}
    assert {name for name in before | after if before.get(name) != after.get(name)} == changed
    assert (await room.condition("Ready"))[0] == "True"
    room.kube.objects["Pod"].clear()
    assert (await room.condition("Ready"))[0] == "False"
    assert room.kube.all("WorkerPool")[0]["status"]["replicas"] == 0


async def test_a_pool_that_cannot_be_read_drains_and_goes_when_it_is_deleted(room):
    """Its finalizer holds nothing for ever."""
    await room.condition("Ready")
    pool = room.kube.all("WorkerPool")[0]
    room.kube.put("WorkerPool", KEY, pool | {"spec": pool["spec"] | {"invented": "later"}})
    room.kube.delete("WorkerPool", KEY)
    await room.live(30)
    assert room.kube.all("WorkerPool") == room.kube.all("Pod") == []


async def test_a_deleted_pool_works_off_its_queue_before_its_workers_drain(room):
    """It grows for that, if need be, and says until when; then it goes."""
    await room.live(5)
    room.dispatcher.signal = replace(QUIET, waiting=400, work_s=4000.0, arrived=400)
    room.kube.delete("WorkerPool", KEY)
    deleted_at = room.kube.now
    await room.live(20)
    assert len(room.kube.all("Pod")) > 1
    assert not any(MARK in pod["metadata"].get("annotations", {}) for pod in room.kube.all("Pod"))
    status, message = await room.condition("Ready")
    assert (status, message) == (
        "False",
        f"the pool is being deleted; what waits is worked off first, until {clock(deleted_at + LONGEST_S)} at the latest",
    )
    room.dispatcher.signal = replace(QUIET, busy=1)
    await room.live(20)
    assert len(room.kube.all("Pod")) > 1, "what runs may come back to the queue"
    room.dispatcher.signal = QUIET
    await room.live(20)
    assert room.kube.all("WorkerPool") == room.kube.all("Pod") == []


async def test_a_queue_that_nobody_works_off_holds_a_deleted_pool_no_longer_than_it_says(room):
    """An image that cannot be pulled, for example, or a pool at zero that people scale."""
    await room.live(5)
    room.dispatcher.signal = replace(QUIET, waiting=3, work_s=3.0, arrived=3)
    room.kube.delete("WorkerPool", KEY)
    room.kube.now += LONGEST_S - 5
    await room.live(3)
    assert room.kube.all("WorkerPool")
    await room.live(10)
    assert not room.kube.all("WorkerPool")


async def test_a_new_operator_waits_for_word_of_a_deleted_pool(room):
    """It neither drains workers with tasks nor raises again what was drained already."""
    await room.live(5)
    room.dispatcher.signal = replace(QUIET, age_s=float("inf"))
    room.kube.delete("WorkerPool", KEY)
    await room.kube.scale("Deployment", ("default", "pool-llama"), 0)
    await room.live(30)
    assert room.kube.scaled["Deployment"][-1][1] == 0
    assert room.kube.all("WorkerPool")
    await room.live(40)
    assert not room.kube.all("WorkerPool")


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


TAKEN = ApiError(409, 'Apply failed with 1 conflict: conflict with "kubectl-set" using apps/v1: .spec.template.x')


async def test_a_pool_whose_deployment_somebody_else_changed_scales_drains_and_tells(room):
    """Its template stays as it is; what the pool is for goes on, and the spec that is not carried out is told once."""
    await room.live(3)
    room.refuses["apply Deployment"] = TAKEN
    pool = room.kube.all("WorkerPool")[0]
    changed = pool["spec"] | {"template": {"labels": {"a": "b"}}, "scaling": {"hold": {"mode": "Fixed", "seconds": 5}}}
    room.kube.put("WorkerPool", KEY, pool | {"spec": changed})
    room.dispatcher.signal = replace(QUIET, waiting=400, work_s=4000.0, arrived=400)
    await room.live(60)
    assert len(room.kube.all("Pod")) > 1
    status, message = await room.condition("Ready")
    assert status == "True"
    assert "somebody else has set fields of Deployment pool-llama" in message
    assert "kubectl-set" in message
    room.dispatcher.signal = QUIET
    await room.live(60)
    assert len(room.kube.all("Pod")) == 1
    assert [reason for reason, _ in room.events].count("FieldsTaken") == 1
    assert room.asked["apply Deployment"] < 40, "it is tried again now and then, not at each step"
    del room.refuses["apply Deployment"]
    await room.live(60)
    assert "kubectl-set" not in (await room.condition("Ready"))[1]
    assert room.kube.all("Deployment")[0]["spec"]["template"]["metadata"]["labels"]["a"] == "b"


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget"])
async def test_a_new_pool_of_which_a_part_is_refused_says_so(room, kind):
    """A quota, here; the other parts are made."""
    room.refuses[f"apply {kind}"] = ApiError(
        403, f"{kind} is forbidden: exceeded quota: few, requested: 1, used: 5, limited: 5"
    )
    await room.live(15)
    status, message = await room.condition("Ready")
    assert f"a quota of the namespace is used up: {kind} is forbidden" in message
    assert status == ("False" if kind == "Deployment" else "True")
    assert [reason for reason, _ in room.events].count("QuotaExceeded") == 1
    others = {"Deployment", "Service", "PodDisruptionBudget"} - {kind}
    assert all(room.kube.all(other) for other in others)


async def test_a_step_in_which_something_was_refused_says_so_at_its_end(room):
    """For the log and the metric of whoever made it."""
    room.refuses["apply Service"] = ApiError(403, "no")
    with pytest.raises(ApiError, match="Service pool-llama: no"):
        await room.step()
    assert room.kube.all("WorkerPool")[0]["status"]["conditions"]


async def test_an_order_that_is_refused_is_told_and_not_carried_out(room):
    """By an admission policy, for example."""
    await room.live(3)
    room.refuses["scale WorkerPool"] = ApiError(403, "two are enough")
    room.dispatcher.signal = replace(QUIET, waiting=400, work_s=4000.0, arrived=400)
    await room.live(15)
    assert "two are enough" in (await room.condition("Ready"))[1]
    assert len(room.kube.all("Pod")) == 1
    assert (await room.condition("SignalFresh"))[0] == "True"


async def test_what_was_learned_and_may_not_be_kept_stops_nothing(room):
    """It is tried again when it would be written again."""
    room.refuses["apply ConfigMap"] = ApiError(403, "exceeded quota")
    await room.live(30)
    assert await room.condition("Ready") == ("True", "1 of 1 workers take tasks")
    assert room.asked["apply ConfigMap"] <= 2


async def test_an_api_server_that_is_away_ends_the_step(room):
    """That is no refusal: nothing else would get through. The next step makes up for it."""
    await room.live(3)
    room.refuses["apply Service"] = ApiError(0, "the API server is away")
    room.kube.now += APPLY_S
    before = room.asked.total()
    with pytest.raises(ApiError, match="away"):
        await room.step()
    assert room.asked.total() == before + 3  # Deployment, budget, and the Service
    del room.refuses["apply Service"]
    tried = room.asked["apply Service"]
    await room.step()
    assert room.asked["apply Service"] == tried + 1


async def test_a_deployment_that_the_watch_has_not_told_of_keeps_its_replicas(room):
    """It is applied as new only if it is: with the pool's replicas it would lose pods."""
    await room.live(3)
    await room.kube.scale("Deployment", ("default", "pool-llama"), 5)
    for each in WATCHED:
        room.store.replace(each, [] if each == "Deployment" else room.kube.all(each))
    await room.keeper.step(room.kube.now)
    assert room.kube.all("Deployment")[0]["spec"]["replicas"] == 5


async def test_decisions_are_counted_by_direction_and_bound(room):
    """Where a bound holds the number, the work asks for more than people allow."""

    def count(direction, bound):
        labels = {"pool": "llama", "direction": direction, "bound": bound}
        return REGISTRY.get_sample_value("millrace_operator_decisions_total", labels) or 0

    before = count("up", "maxReplicas"), count("down", "none")
    await room.live(3)
    pool = room.kube.all("WorkerPool")[0]
    scaling = {"maxReplicas": 3, "hold": {"mode": "Fixed", "seconds": 5}}
    room.kube.put("WorkerPool", KEY, pool | {"spec": pool["spec"] | {"scaling": scaling}})
    room.dispatcher.signal = replace(QUIET, waiting=400, work_s=4000.0, arrived=400)
    await room.live(5)
    room.dispatcher.signal = QUIET
    await room.live(60)
    assert (count("up", "maxReplicas"), count("down", "none")) == (before[0] + 1, before[1] + 1)
