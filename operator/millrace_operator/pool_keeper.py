"""One WorkerPool, kept: its objects applied, its number of workers decided and carried out, its status told.

Level-triggered: each `step` looks at everything anew, so whatever was missed, refused or interrupted is made up for by a later
one. What must outlive the operator stands in the cluster: replicas in the pool, marks on pods, experience in a ConfigMap.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from millrace_operator.core import leaving
from millrace_operator.core.decide import Decision, decide
from millrace_operator.core.desired import (
    POOL_LABEL,
    Installation,
    labels_of,
    name_of,
    objects,
    owned_by,
)
from millrace_operator.core.draining import COST, DRAINING_COST, FINISHED_COST, MARK, Leaver, Steps, mark_of, steps
from millrace_operator.core.learning import Estimates, Sample, from_dict, to_dict
from millrace_operator.core.leaving import Stage
from millrace_operator.core.manifests import Flaw, Manifest, read
from millrace_operator.core.pods import by_hand, facts_of, instant, ready_since, refusal, start_of, terminating
from millrace_operator.core.schema import WorkerPool
from millrace_operator.core.troubles import CONFLICT, Refusal
from millrace_operator.core.vocabulary import Manual, Memory, Mode, Observation, Policy
from millrace_operator.core.worker_pool import Drain
from millrace_operator.pool_report import PoolReport, Sight
from millrace_operator.ports import MANAGER, SCALER, ApiError, Cluster, Drains, Signal, Signals
from millrace_operator.store import Key, Object, Store

log = logging.getLogger(__name__)

FINALIZER: Final = "millrace.dev/drain"
APPLY_S: Final = 60.0  # objects are applied again after so long, whatever somebody did to them
REFUSED_S: Final = 5.0  # and after so long, if one of them was refused
LEARNED_S: Final = 60.0  # between two writes of what was learned
SETTLE_S: Final = 5.0  # for a write of ours to come back by the watch


@dataclass(frozen=True, slots=True)
class World:
    """What all keepers share. `lag`: tasks of a pool in Kafka beyond the committed offsets; None: unknown."""

    store: Store
    cluster: Cluster
    drains: Drains
    signals: Signals
    installed: Installation
    lag: Callable[[str], int | None] = lambda _: None


class PoolKeeper:
    """`step` once a second, and at once when a pool at zero gets work. What people read of it is in `report`."""

    def __init__(self, world: World, key: Key) -> None:
        self._world = world
        self.key = key
        self.report = PoolReport(world.store, world.cluster, key)
        self._memory = Memory()
        self._estimates: Estimates | None = None
        self._kept: dict[str, Any] = {}
        self._kept_at = 0.0
        self._applied: tuple[str, float] = ("", float("-inf"))
        self._busy_at: float | None = None  # when it had tasks last, since it is being deleted
        self._refused: dict[str, Refusal] = {}  # what the API server does not do, by its object
        self._ordered: tuple[int, float] | None = None  # replicas written to the Deployment, and when
        self._asked: tuple[int, float] | None = None  # replicas written to the pool, and when
        self._marked: dict[str, tuple[float | None, float]] = {}  # marks written to pods (None: taken back), and when

    async def step(self, now: float) -> None:
        """Look and act once. Raises ApiError when the API server did not do something; the next step tries again.

        A refusal ends its own part of the step and is told; only a server that is away ends all of it at once.
        """
        raw = self._world.store.get("WorkerPool", self.key)
        if raw is None:
            return
        self._marked = {pod: own for pod, own in self._marked.items() if now - own[1] < SETTLE_S}
        stage = self._stage(raw, now)
        pool = read(Manifest("the cluster", 1, {**raw, "status": None}))
        if isinstance(pool, Flaw):
            sight = self._sight(raw, stage, self._learned(self.key[1]))
            await self.report.flaw(raw, f"{pool.path}: {pool.rule}", sight, now)
            if stage is Stage.DRAINS and await self._carry(Drain(), 0, now) == 0:  # it can go, whatever it says
                await self._release(raw)
            return
        assert isinstance(pool, WorkerPool)
        paused = policy_of(pool).mode is Mode.PAUSED
        if stage is None:
            await self._hold(raw)
        elif FINALIZER not in raw["metadata"].get("finalizers", ()):
            return
        estimates = self._learned(self.key[1])
        estimates = estimates.saw_pods(start_of(pod) for pod in self._pods())
        if paused:
            self._refused.clear()
        elif stage is None:
            await self._apply(pool, raw, now)
        decision, wanted, self._estimates = await self._number(pool, raw, stage, estimates, now)
        left = await self._move(pool, stage, wanted, now)
        if stage is Stage.DRAINS and left == 0:
            await self._release(raw)
            return
        sight = self._sight(raw, stage, self._estimates)
        await self.report.tell(raw, policy_of(pool), sight, decision, wanted=wanted, now=now)
        with self._part("what was learned"):
            await self._keep(raw, now)
        if first := next(iter(self._refused.values()), None):
            raise ApiError(first.status, f"{first.what}: {first.words}")

    @contextmanager
    def _part(self, what: str) -> Iterator[None]:
        """What can be refused by itself."""
        try:
            yield
        except ApiError as refused:
            if not refused.status:
                raise
            self._refused[what] = Refusal(what, refused.status, str(refused))
        else:
            self._refused.pop(what, None)

    def _sight(self, raw: Object, stage: Stage | None, estimates: Estimates) -> Sight:
        deployment = self._deployment
        return Sight(
            signal=self._world.signals.latest(self.key[1]),
            estimates=estimates,
            pods=[(pod, self._since(pod) is not None) for pod in self._pods()],
            made=deployment is not None,
            refused=refusal(deployment) if deployment else "",
            objects=tuple(self._refused.values()),
            leaves=leaving.sentence(stage, _deleted_at(raw)) if stage else "",
        )

    # -- what is there ------------------------------------------------------------------------------------------------

    def _pods(self) -> list[Object]:
        """Pods of the pool that are not being deleted."""
        return [
            pod
            for key, pod in self._world.store.all("Pod").items()
            if key[0] == self.key[0]
            and pod["metadata"].get("labels", {}).get(POOL_LABEL) == self.key[1]
            and not terminating(pod)
        ]

    @property
    def _deployment(self) -> Object | None:
        return self._world.store.get("Deployment", (self.key[0], name_of(self.key[1])))

    def _replicas(self, deployment: Object, now: float) -> int:
        """Of the Deployment; our own last word until the watch brings it back."""
        if self._ordered and now - self._ordered[1] < SETTLE_S:
            return self._ordered[0]
        replicas: int = deployment["spec"].get("replicas", 1)
        return replicas

    def _spec_replicas(self, pool: WorkerPool, now: float) -> int:
        if self._asked and now - self._asked[1] < SETTLE_S:
            return self._asked[0]
        return pool.spec.replicas

    def _since(self, pod: Object) -> float | None:
        """Since when it is marked to leave; our own last word until the watch brings it back, lest another one is marked."""
        if own := self._marked.get(pod["metadata"]["name"]):
            return own[0]
        return mark_of(pod["metadata"].get("annotations", {}))

    def _stage(self, raw: Object, now: float) -> Stage | None:
        """Of a pool that is being deleted; None: it is not."""
        if "deletionTimestamp" not in raw["metadata"]:
            self._busy_at = None
            return None
        signal = self._world.signals.latest(self.key[1])
        seen = Observation(
            replicas=0,
            signal_age_s=signal.age_s if signal else float("inf"),
            waiting=signal.waiting if signal else 0,
            running=signal.busy if signal else 0,
            lag=self._world.lag(self.key[1]),
        )
        stage = leaving.stage(seen, _deleted_at(raw), now if self._busy_at is None else self._busy_at, now)
        if self._busy_at is None or stage is Stage.WORKS:
            self._busy_at = now
        return stage

    # -- life ---------------------------------------------------------------------------------------------------------

    async def _hold(self, raw: Object) -> None:
        """A pool that goes finishes its work and drains first."""
        finalizers = raw["metadata"].get("finalizers", [])
        if FINALIZER not in finalizers:
            version = raw["metadata"]["resourceVersion"]
            metadata = {"finalizers": [*finalizers, FINALIZER], "resourceVersion": version}
            await self._world.cluster.patch("WorkerPool", self.key, {"metadata": metadata})

    async def _release(self, raw: Object) -> None:
        finalizers = [name for name in raw["metadata"].get("finalizers", ()) if name != FINALIZER]
        metadata = {"finalizers": finalizers, "resourceVersion": raw["metadata"]["resourceVersion"]}
        await self._world.cluster.patch("WorkerPool", self.key, {"metadata": metadata})
        log.info("pool %s is drained and goes", self.key[1])

    async def _apply(self, pool: WorkerPool, raw: Object, now: float) -> None:
        """The objects, when the spec changed, one is not there, or some time has passed."""
        wanted = list(objects(pool, raw, self._world.installed))
        digest = hashlib.sha256(msgspec.json.encode(wanted)).hexdigest()
        known = self._deployment is not None
        refused = any(what in self._refused for what in map(_what, wanted))
        again_s = REFUSED_S if refused else APPLY_S if known else 0.0
        if self._applied[0] == digest and now - self._applied[1] < again_s:
            return
        there = known or await self._world.cluster.get("Deployment", (self.key[0], name_of(self.key[1]))) is not None
        for manifest in wanted:
            with self._part(_what(manifest)):
                if manifest["kind"] == "Deployment":
                    await self._apply_deployment(manifest, None if there else self._spec_replicas(pool, now))
                else:
                    await self._world.cluster.apply(manifest)
        self._applied = (digest, now)

    async def _apply_deployment(self, manifest: dict[str, Any], replicas: int | None) -> None:
        """A new one gets its replicas with it, or it would begin with one; then they belong to the scaler, nothing else does."""
        cluster = self._world.cluster
        if replicas is not None:
            whole = {**manifest, "spec": {**manifest["spec"], "replicas": replicas}}
            await cluster.apply(whole, manager=SCALER)
        try:
            await cluster.apply(manifest)
        except ApiError as refused:
            if refused.status != CONFLICT or SCALER not in str(refused):
                raise
            alone = {field: manifest[field] for field in ("apiVersion", "kind")}
            name = {field: manifest["metadata"][field] for field in ("name", "namespace")}
            made = await cluster.apply(manifest, force=True)
            spec = {"replicas": made["spec"]["replicas"]}
            await cluster.apply({**alone, "metadata": name, "spec": spec}, manager=SCALER)

    # -- how many -----------------------------------------------------------------------------------------------------

    def _decide(self, pool: WorkerPool, raw: Object, estimates: Estimates, now: float) -> tuple[Decision, Estimates]:
        spec = pool.spec
        signal = self._world.signals.latest(self.key[1])
        if signal:
            sample = Sample(now - signal.age_s, signal.epoch, signal.arrived, signal.waiting + signal.busy, signal.busy)
            estimates = replace(
                estimates.saw_service(signal.service_s, signal.ended), arrivals=estimates.arrivals.counted(sample)
            )
        policy = policy_of(pool)
        hold = spec.scaling.hold
        least, most = (
            (float(hold.seconds), float(hold.seconds))
            if hold.seconds is not None
            else (float(hold.min_seconds), float(hold.max_seconds))
        )
        decision = decide(
            policy,
            self._observe(pool, raw, signal, estimates, now),
            estimates.learned(least, most),
            self._memory,
            now,
        )
        return decision, estimates.wished(decision.wish, now)

    def _observe(
        self, pool: WorkerPool, raw: Object, signal: Signal | None, estimates: Estimates, now: float
    ) -> Observation:
        pods = self._pods()
        working = [pod for pod in pods if self._since(pod) is None]
        fast, slow = estimates.arrivals.rates()
        hand = by_hand(raw, (MANAGER, SCALER))
        return Observation(
            replicas=self._spec_replicas(pool, now),
            ready=sum(ready_since(pod) is not None for pod in working),
            starting=tuple(facts_of(pod, draining=False).created for pod in working if ready_since(pod) is None),
            draining=len(pods) - len(working),
            signal_age_s=signal.age_s if signal else float("inf"),
            waiting=signal.waiting if signal else 0,
            work_s=signal.work_s if signal else 0.0,
            running=signal.busy if signal else 0,
            arrivals_fast=fast,
            arrivals_slow=slow,
            service_s=estimates.service_s,
            lag=self._world.lag(self.key[1]),
            manual=Manual(pool.spec.replicas, hand) if hand is not None else None,
        )

    async def _number(
        self, pool: WorkerPool, raw: Object, stage: Stage | None, estimates: Estimates, now: float
    ) -> tuple[Decision | None, int, Estimates]:
        """What is decided, if anything is, and ordered; how many workers there shall be."""
        if stage is Stage.DRAINS:
            return None, 0, estimates
        if stage is Stage.WAITS:
            return None, self._spec_replicas(pool, now), estimates
        decision, estimates = self._decide(pool, raw, estimates, now)
        wanted, self._memory = decision.current, replace(decision.memory, ups=self._memory.ups)
        with self._part("the scale of the pool"):
            if decision.changes:
                await self._order(raw, decision, now)
            wanted, self._memory = decision.desired, decision.memory
        return decision, wanted, estimates

    async def _move(self, pool: WorkerPool, stage: Stage | None, wanted: int, now: float) -> int | None:
        """Towards the number, if anything may move; how many are left at most, if that is known."""
        if stage is Stage.WAITS:
            await self._leavers(self._pods())
        elif stage is Stage.DRAINS or policy_of(pool).mode is not Mode.PAUSED:
            with self._part("the change of its workers"):
                return await self._carry(pool.spec.drain, wanted, now)
        return None

    async def _order(self, raw: Object, decision: Decision, now: float) -> None:
        await self._world.cluster.scale("WorkerPool", self.key, decision.desired)
        self._asked = (decision.desired, now)
        log.info("pool %s: %s", self.key[1], decision.sentence)
        await self.report.decided(raw, decision, now)

    async def _carry(self, drain: Drain, wanted: int, now: float) -> int:
        """Move the Deployment towards the number; how many pods and replicas are left at most."""
        deployment = self._deployment
        if deployment is None:
            return len(self._pods())
        ordered = self._replicas(deployment, now)
        pods = self._pods()
        leavers = await self._leavers(pods)
        addresses = {pod["metadata"]["name"]: pod.get("status", {}).get("podIP", "") for pod in pods}
        deadline_s = float(drain.deadline_seconds)
        todo = steps(wanted, ordered, leavers, deadline_s, now)
        if todo.mark:  # who has the least to lose?
            running = await asyncio.gather(*(self._world.drains.look(addresses[one.name]) for one in leavers))
            leavers = [replace(one, running=tasks or 0) for one, tasks in zip(leavers, running, strict=True)]
            todo = steps(wanted, ordered, leavers, deadline_s, now)
        await self._drain(todo, addresses, now)
        if todo.replicas is not None:
            await self._world.cluster.scale("Deployment", (self.key[0], name_of(self.key[1])), todo.replicas)
            self._ordered = (todo.replicas, now)
            log.info("pool %s: its Deployment has %d replicas, had %d", self.key[1], todo.replicas, ordered)
        return max(len(pods), ordered if todo.replicas is None else todo.replicas)

    async def _leavers(self, pods: Sequence[Object]) -> list[Leaver]:
        """Those that drain are told to, again."""
        return await asyncio.gather(*(self._leaver(pod) for pod in pods))

    async def _leaver(self, pod: Object) -> Leaver:
        since = self._since(pod)
        in_flight = None
        if since is not None:
            in_flight = await self._in_flight(pod)
        return Leaver(
            pod["metadata"]["name"],
            ready_since(pod) is not None,
            facts_of(pod, draining=False).created,
            since=since,
            in_flight=in_flight,
        )

    async def _in_flight(self, pod: Object) -> int | None:
        """Also tells it to drain, again: a worker believes an operator for a minute."""
        if not _runs(pod):
            return 0
        return await self._world.drains.begin(pod["status"]["podIP"])

    async def _drain(self, todo: Steps, addresses: Mapping[str, str], now: float) -> None:
        for name in todo.take_back:
            await self._mark(name, now, leaves=False)
            if addresses[name]:
                await self._world.drains.end(addresses[name])
        for name in todo.mark:
            await self._mark(name, now, leaves=True)
            if addresses[name]:
                await self._world.drains.begin(addresses[name])
        for name in todo.finished:
            await self._world.cluster.patch(
                "Pod", (self.key[0], name), {"metadata": {"annotations": {COST: FINISHED_COST}}}
            )

    async def _mark(self, name: str, now: float, *, leaves: bool) -> None:
        annotations = {MARK: f"{now:.0f}", COST: DRAINING_COST} if leaves else {MARK: None, COST: None}
        await self._world.cluster.patch("Pod", (self.key[0], name), {"metadata": {"annotations": annotations}})
        self._marked[name] = (now if leaves else None, now)

    # -- what was learned ---------------------------------------------------------------------------------------------

    def _learned(self, pool: str) -> Estimates:
        if self._estimates is None:
            kept = self._world.store.get("ConfigMap", (self.key[0], _learned_name(pool)))
            try:
                self._kept = json.loads(kept["data"]["learned.json"]) if kept else {}
            except (KeyError, TypeError, ValueError):
                self._kept = {}
            self._estimates = from_dict(self._kept)
        return self._estimates

    async def _keep(self, raw: Object, now: float) -> None:
        assert self._estimates
        learned = to_dict(self._estimates)
        if learned in (self._kept, to_dict(Estimates())) or now - self._kept_at < LEARNED_S:
            return
        self._kept_at = now
        await self._world.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "namespace": self.key[0],
                    "name": _learned_name(self.key[1]),
                    "labels": labels_of(self.key[1]),
                    "ownerReferences": [owned_by(raw)],
                },
                "data": {"learned.json": json.dumps(learned)},
            }
        )
        self._kept = learned


def policy_of(pool: WorkerPool) -> Policy:
    """The spec's scaling in the words of the law."""
    spec = pool.spec
    scaling = spec.scaling
    return Policy(
        mode=Mode(scaling.mode),
        minimum=scaling.min_replicas,
        maximum=scaling.max_replicas,
        slots=spec.concurrency.slots,
        headroom=scaling.headroom,
        wait_s=spec.slo.queue_wait_seconds,
        idle_s=float(scaling.idle_seconds),
        manual_hold_s=float(scaling.manual_hold_seconds),
        step_up=scaling.step_limits.max_up,
        step_period_s=float(scaling.step_limits.period_seconds),
    )


def _runs(pod: Object) -> bool:
    """Has its worker begun? One that has not holds no task."""
    containers = pod.get("status", {}).get("containerStatuses", ())
    return any("running" in container.get("state", {}) for container in containers) and bool(pod["status"].get("podIP"))


def _deleted_at(raw: Object) -> float:
    return instant(raw["metadata"]["deletionTimestamp"])


def _what(manifest: Object) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _learned_name(pool: str) -> str:
    return f"{name_of(pool)}-learned"
