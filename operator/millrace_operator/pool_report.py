"""What people read of one WorkerPool: its status with the conditions, and events. Written when there is news, never read back as input."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from millrace_operator.core import conditions, troubles
from millrace_operator.core.decide import Decision
from millrace_operator.core.definitions import digests
from millrace_operator.core.desired import selector_of
from millrace_operator.core.learning import Estimates
from millrace_operator.core.pods import facts_of, start_of
from millrace_operator.core.reasons import Condition, ConditionType, Reason
from millrace_operator.core.selection import Verdict
from millrace_operator.core.vocabulary import Policy
from millrace_operator.core.worker_pool import (
    ColdStartStatus,
    DecisionStatus,
    QueueStatus,
    RatesStatus,
    WorkerPoolStatus,
)
from millrace_operator.ports import ApiError, Cluster, Signal
from millrace_operator.store import Key, Object, Store
from services.chassis.metrics import operator_decisions, operator_replicas

log = logging.getLogger(__name__)

STATUS_S: Final = 5.0  # between two writes of a status
OWN_SCHEMAS: Final = digests()


@dataclass(frozen=True, slots=True)
class Sight:
    """What a step saw.

    `pods`: with whether each drains; `made`: is there a Deployment; `refused`: why the cluster makes no pod, if it does not;
    `objects`: what it did not do for the operator; `leaves`: how far a pool is that is being deleted, "" of another one.
    """

    signal: Signal | None
    estimates: Estimates
    pods: Sequence[tuple[Object, bool]]
    made: bool
    refused: str
    objects: Sequence[troubles.Refusal]
    leaves: str


class PoolReport:
    """`verdict`: what the snapshot says of the pool."""

    def __init__(self, store: Store, cluster: Cluster, key: Key) -> None:
        self._store, self._cluster, self._key = store, cluster, key
        self.verdict: Verdict | None = None
        self._shown = troubles.Shown()
        self._trouble = ""
        self._dead = (0, float("-inf"))  # tasks given up and when the last was; a new dispatcher knows of none
        self._decided: DecisionStatus | None = None
        self._conditions: tuple[Condition, ...] = ()
        self._written: dict[str, Any] = {}
        self._written_at = float("-inf")

    @property
    def ready(self) -> bool:
        """Does the pool take tasks, or would it start a worker for one? As told last, by whoever led."""
        raw = self._store.get("WorkerPool", self._key)
        return any(c.type == ConditionType.READY and c.status == "True" for c in self._before(raw or {}))

    async def decided(self, raw: Object, decision: Decision, now: float) -> None:
        """A number was ordered: the next status says so at once."""
        self._decided = DecisionStatus(
            time=datetime.fromtimestamp(now, UTC).replace(microsecond=0),
            from_=decision.current,
            to=decision.desired,
            reason=decision.reason,
            message=decision.sentence,
            bound=decision.bound,
        )
        self._written_at = float("-inf")
        direction = "up" if decision.desired > decision.current else "down"
        operator_decisions.labels(self._key[1], direction, decision.bound or "none").inc()
        await self._event(raw, decision.reason, decision.sentence)

    async def flaw(self, raw: Object, flaw: str, sight: Sight, now: float) -> None:
        """The spec cannot be read: that, and what can be seen without it. How many are wanted is as it was told last."""
        facts, wanted = self._look(sight, now), _wanted(raw)
        sayings = [
            conditions.Saying(ConditionType.ACCEPTED, False, Reason.INVALID, flaw),
            *([self._ready(Policy(), sight, facts, wanted=wanted, now=now)] if wanted or sight.leaves else ()),
        ]
        await self._put(raw, sayings, sight, facts, wanted=wanted, now=now)

    async def tell(
        self, raw: Object, policy: Policy, sight: Sight, decision: Decision | None, *, wanted: int, now: float
    ) -> None:
        """All of it, after a step. `decision`: None of a pool that leaves and has no work."""
        facts = self._look(sight, now)
        sayings = [
            self._accepted(),
            self._ready(policy, sight, facts, wanted=wanted, now=now),
            conditions.scaling_active(policy),
            *([conditions.scaling_limited(policy, decision)] if decision else ()),
        ]
        await self._put(raw, sayings, sight, facts, wanted=wanted, now=now)

    def _look(self, sight: Sight, now: float) -> list[troubles.PodFacts]:
        """What is known of the pods, and which trouble is shown."""
        signal = sight.signal
        if signal and signal.last_dead_at >= self._dead[1]:
            self._dead = (signal.dead, signal.last_dead_at)
        facts = [facts_of(pod, draining=draining) for pod, draining in sight.pods]
        found = troubles.find(facts, sight.refused, sight.estimates.cold_start.ready_s, now, sight.objects)
        self._shown = troubles.debounce(self._shown, found, now)
        return facts

    def _ready(
        self, policy: Policy, sight: Sight, facts: Sequence[troubles.PodFacts], *, wanted: int, now: float
    ) -> conditions.Saying:
        return conditions.ready(
            policy,
            facts,
            self._shown,
            desired=wanted,
            ready_s=sight.estimates.cold_start.ready_s,
            leaves=sight.leaves,
            made=sight.made,
            now=now,
        )

    async def _put(
        self,
        raw: Object,
        sayings: Sequence[conditions.Saying],
        sight: Sight,
        facts: Sequence[troubles.PodFacts],
        *,
        wanted: int,
        now: float,
    ) -> None:
        """These, what is seen, and the numbers."""
        signal, estimates = sight.signal, sight.estimates
        leaving = sum(fact.draining for fact in facts)
        ready = sum(fact.ready_since is not None and not fact.draining for fact in facts)
        sayings = [
            *sayings,
            conditions.signal_fresh(signal.age_s if signal else float("inf")),
            conditions.draining(leaving),
            conditions.poisoned(*self._dead, now),
            *self._schema(),
        ]
        generation = raw["metadata"]["generation"]
        self._conditions = conditions.merge(self._before(raw), sayings, generation, now)
        status = WorkerPoolStatus(
            observed_generation=generation,
            replicas=len(facts),
            ready_replicas=ready,
            starting_replicas=len(facts) - ready - leaving,
            draining_replicas=leaving,
            desired_replicas=wanted,
            selector=selector_of(self._key[1]),
            queue=_queue(signal) if signal else None,
            rates=RatesStatus(
                arrival_per_second=round(estimates.arrivals.rates()[1], 2),
                service_seconds=round(estimates.service_s, 2),
            ),
            cold_start=ColdStartStatus(
                p80_seconds=round(estimates.cold_start.ready_s, 1), last_seconds=_last_start(sight.pods)
            ),
            last_decision=self._decided or _decision(raw),
            conditions=self._conditions,
        )
        for state, workers in (("desired", wanted), ("ready", ready)):
            operator_replicas.labels(self._key[1], state).set(workers)
        await self._write(status, now)
        await self._tell_trouble(raw)

    def _schema(self) -> list[conditions.Saying]:
        schemas = self._store.digests
        return [] if schemas is None else [conditions.crd_outdated(schemas, OWN_SCHEMAS)]

    def _accepted(self) -> conditions.Saying:
        if self.verdict is None:
            return conditions.Saying(ConditionType.ACCEPTED, True, Reason.VALID, "the spec is right")
        verdict = self.verdict
        return conditions.Saying(ConditionType.ACCEPTED, verdict.accepted, verdict.reason, verdict.message)

    def _before(self, raw: Object) -> tuple[Condition, ...]:
        """Conditions as written last, for their times alone."""
        if self._conditions:
            return self._conditions
        try:
            return msgspec.convert(raw.get("status", {}).get("conditions", []), tuple[Condition, ...])
        except msgspec.ValidationError:
            return ()

    async def _write(self, status: WorkerPoolStatus, now: float) -> None:
        built: dict[str, Any] = msgspec.to_builtins(status)
        built = {name: value for name, value in built.items() if value is not None}
        if built == self._written or now - self._written_at < STATUS_S:
            return
        await self._cluster.apply_status("WorkerPool", self._key, built)
        self._written, self._written_at = built, now

    async def _tell_trouble(self, raw: Object) -> None:
        sentence = self._shown.shown.sentence if self._shown.shown else ""
        if sentence != self._trouble and self._shown.shown:
            await self._event(raw, self._shown.shown.reason, sentence, warning=True)
        self._trouble = sentence

    async def _event(self, raw: Object, reason: str, message: str, *, warning: bool = False) -> None:
        try:
            await self._cluster.event(raw, reason, message, warning=warning)
        except ApiError as refused:  # people miss a line, nothing else does
            log.warning("an event of pool %s was not written: %s", self._key[1], refused)


def _queue(signal: Signal) -> QueueStatus:
    return QueueStatus(
        waiting_work_seconds=round(signal.work_s, 1), waiting_requests=signal.waiting, in_flight=signal.busy
    )


def _last_start(pods: Sequence[tuple[Object, bool]]) -> float:
    """Seconds that the newest pod which is ready took."""
    starts = [start for pod, _ in pods if (start := start_of(pod)).ready_at is not None and not start.restarts]
    newest = max(starts, key=lambda start: start.created, default=None)
    return round(newest.ready_at - newest.created, 1) if newest and newest.ready_at is not None else 0.0


def _wanted(raw: Object) -> int:
    wanted = raw.get("status", {}).get("desiredReplicas", 0)
    return wanted if isinstance(wanted, int) else 0


def _decision(raw: Object) -> DecisionStatus | None:
    """As it stands in the status, so that a new operator does not wipe it out."""
    try:
        return msgspec.convert(raw.get("status", {}).get("lastDecision"), DecisionStatus | None)
    except msgspec.ValidationError:
        return None
