"""From the objects in the cluster to the snapshot in Redis, and back to their status.

A change is published at once, those that follow within `GAP_S` together. Redis is looked at every `LOOK_S`: one that lost
the snapshot, or came back with an older one, gets it again. A pool enters the snapshot when its lanes exist in Kafka.

Only the leader writes. A standby selects and remembers as the leader does, so that it goes on from the same state.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import hiredis
import msgspec

from millrace.config.v1.config_pb2 import Snapshot
from millrace_operator.core import schema as m
from millrace_operator.core.conditions import Saying, merge
from millrace_operator.core.decide import clock
from millrace_operator.core.manifests import Flaw, Manifest, read
from millrace_operator.core.reasons import Condition, ConditionType, Reason
from millrace_operator.core.selection import (
    Document,
    Identity,
    KeyTrouble,
    Known,
    Place,
    Selection,
    TenantKey,
    Verdict,
    generation_of,
    identity_of,
    remember,
    secrets_of,
    select,
)
from millrace_operator.offline import CHANNEL, KEY, describe, parsed, stamped
from millrace_operator.ports import ApiError, Cluster
from millrace_operator.store import OURS, Key, Object, Store
from services.chassis.backoff import backoff
from services.chassis.clock import monotonic, now
from services.chassis.resp import RedisAwayError, Resp

log = logging.getLogger(__name__)

KINDS: Final = (*OURS, "Secret")
REPORTED: Final = ("ModelRoute", "Tenant", "LimitPolicy")  # a pool's status is its reconciler's
GAP_S: Final = 0.05  # between two snapshots
BEFORE: Final = "cfg:before"  # versions that stay in force although another one stands there; only this module reads it
LOOK_S: Final = 0.5  # between two looks at what Redis holds
STATUS_GAP_S: Final = 5.0  # between two writes of an object's status
SETTLE_S: Final = 1.0  # bad news wait for this long: the objects of one `kubectl apply` come in any order
RETRY_S: Final = (0.5, 5.0)  # after lanes could not be made

Told: TypeAlias = Callable[[Key, Verdict], None]


class Publishing:
    """Keeps `cfg:snapshot` equal to the best set of the objects in one namespace, and says in their status what became of them.

    `redis` is open. `leading`: may this process write? `ensure_topics(pool)` makes a pool's lanes, or raises with a sentence.
    `on_pool_verdict(key, verdict)` is called, on the loop, whenever a pool's verdict is new. `pool_ready(pool)`: does it take
    tasks, or would it start a worker for one?
    """

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        redis: Resp,
        *,
        namespace: str,
        leading: Callable[[], bool],
        ensure_topics: Callable[[str], Awaitable[None]],
        on_pool_verdict: Told = lambda _key, _verdict: None,
        pool_ready: Callable[[str], bool] = lambda _pool: True,
        clock: Callable[[], float] = now,
    ) -> None:
        self._store = store
        self._redis = redis
        self._namespace = namespace
        self._leading = leading
        self._on_pool_verdict = on_pool_verdict
        self._pool_ready = pool_ready
        self._now = clock
        self._lanes = _LaneMaker(ensure_topics, self._touch)
        self._statuses = _Statuses(store, cluster, namespace, leading, clock)
        self._due = asyncio.Event()
        self._dirty = True
        self._facts: dict[tuple[str, Key], object] = {}
        self._named: set[str] = set()  # Secrets
        # what was selected
        self._selection = Selection(Snapshot(), {}, {}, {})
        self._known: Mapping[Place, Known] = {}
        self._found: Mapping[TenantKey, bytes] = {}  # hashes in the snapshot that was there at the start
        self._waiting: frozenset[str] = frozenset()  # pools without lanes
        self._told: dict[Key, Verdict] = {}
        # what Redis holds
        self._looked_at = float("-inf")
        self._raw: bytes | None = None
        self._version: str | None = None  # None: not known
        self._before = b"{}"
        self._kept: bytes | None = None  # None: not known
        self._seen_redis = False
        self._away = False
        self._out: Mapping[Identity, Document] = {}  # in force for the services
        self._readiness: Mapping[str, bool] = {}

    def published(self) -> bool:
        """Does Redis hold what was selected last? A standby has nothing to publish. For /readyz."""
        return not self._leading() or (not self._away and self._version == self._selection.snapshot.version != "")

    async def run(self) -> None:
        """Until cancelled. Call once."""
        self._store.subscribe(KINDS, self._seen)
        await self._store.listed.wait()
        self._facts = {(kind, key): _fact(kind, body) for kind in KINDS for key, body in self._store.all(kind).items()}
        self._redis.on_connected.append(self._look_soon)
        async with asyncio.TaskGroup() as group:
            self._lanes.group = group
            group.create_task(self._statuses.run(), name="statuses")
            while True:
                if await self._step():
                    await asyncio.sleep(GAP_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._due.wait()
                self._due.clear()

    def _seen(self, kind: str, key: Key) -> None:
        """Only what the snapshot is made of counts: a status that is written changes nothing."""
        body = self._store.get(kind, key)
        fact = None if body is None else _fact(kind, body)
        if key[0] != self._namespace or self._facts.get((kind, key)) == fact:
            return
        if fact is None:
            del self._facts[kind, key]
        else:
            self._facts[kind, key] = fact
        if kind != "Secret" or key[1] in self._named:
            self._touch()

    def _touch(self) -> None:
        self._dirty = True
        self._due.set()

    def _look_soon(self) -> None:
        self._looked_at = float("-inf")
        self._due.set()

    async def _step(self) -> bool:
        """Look, select, publish, report; was there something new?"""
        await self._reach(self._look)
        at = self._now()
        changed = self._dirty or any(one.until is not None and one.until <= at for one in self._known.values())
        if changed:
            self._dirty = False
            self._select(at)
        if self._leading():
            self._lanes.want(self._pools())
            if self._seen_redis and self._version != self._selection.snapshot.version:
                await self._reach(self._publish)
            elif self._seen_redis and self._kept != self._before and not self._away:
                await self._reach(self._keep)
        else:
            self._lanes.rest()
            self._kept = None
        out, readiness = self._out, {name: self._pool_ready(name) for name in self._pools()}
        if self._version == self._selection.snapshot.version:
            self._out = self._selection.in_force
        if changed or out is not self._out or readiness != self._readiness:
            self._readiness = readiness
            self._tell()
        return changed

    # -- Redis ----------------------------------------------------------------------------------------------------------

    async def _reach(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it if Redis is there. That it is not is said once."""
        try:
            await work()
        except (RedisAwayError, hiredis.ReplyError) as reason:
            if not self._away:
                log.warning("Redis is away: %s; services keep the snapshot that they have", reason)
            self._away, self._version, self._looked_at = True, None, float("-inf")

    async def _look(self) -> None:
        if monotonic() - self._looked_at < LOOK_S:
            return
        raw = await self._redis.call("GET", KEY)
        if not self._seen_redis:
            self._go_on_from(parsed(raw) or Snapshot(), await self._redis.call("GET", BEFORE))
        if self._version is None or raw != self._raw:
            held = parsed(raw)
            self._raw, self._version = raw, held.version if held else ""
            if held and self._lanes.have(pool.name for pool in held.pools):
                self._dirty = True
        self._looked_at, self._away = monotonic(), False

    def _go_on_from(self, held: Snapshot, before: object) -> None:
        """From what an operator published before this one was started."""
        self._found = {(tenant.name, key.name): key.sha256 for tenant in held.tenants for key in tenant.keys}
        versions = _versions(before)
        self._selection = replace(self._selection, accepted=versions | dict(self._selection.accepted))
        self._seen_redis = self._dirty = True

    async def _publish(self) -> None:
        snapshot = self._selection.snapshot
        raw = snapshot.SerializeToString(deterministic=True)
        keep = ("SET", BEFORE, self._before)
        for reply in await self._redis.pipe(keep, ("SET", KEY, raw), ("PUBLISH", CHANNEL, snapshot.version)):
            if isinstance(reply, hiredis.ReplyError):
                raise reply
        self._raw, self._version, self._kept = raw, snapshot.version, self._before
        log.info("published %s", describe(snapshot))

    async def _keep(self) -> None:
        before = self._before
        await self._redis.call("SET", BEFORE, before)
        self._kept = before

    # -- what is in force -----------------------------------------------------------------------------------------------

    def _pools(self) -> dict[str, Document]:
        return self._documents("WorkerPool")

    def _documents(self, kind: str) -> dict[str, Document]:
        """By name. What is being deleted is gone, but for pools: they finish what they have, and get nothing more."""
        return {
            key[1]: _document(kind, body)
            for key, body in self._store.all(kind).items()
            if key[0] == self._namespace and (kind == "WorkerPool" or not _is_deleted(body))
        }

    def _select(self, at: float) -> None:
        documents = {kind: self._documents(kind) for kind in OURS}
        tenants = documents["Tenant"]
        before = self._selection.accepted
        versions = [
            *tenants.values(),
            *(before["Tenant", name].document for name in tenants if ("Tenant", name) in before),
        ]
        self._named = secrets_of(versions)
        secrets = {
            name: _document("Secret", body)
            for name in self._named
            if (body := self._store.get("Secret", (self._namespace, name))) is not None
        }
        self._known = remember(self._known, self._found, versions, secrets, at)
        if self._seen_redis:
            self._found = {}
        pools = documents["WorkerPool"]
        self._waiting = frozenset(
            name for name, pool in pools.items() if name not in self._lanes.made and _is_readable(pool)
        )
        manifests = [
            Manifest(f"{kind}/{name}", 1, document)
            for kind, named in (documents | {"Secret": secrets}).items()
            for name, document in named.items()
            if kind != "WorkerPool" or name not in self._waiting
        ]
        there = self._store.all("WorkerPool").items()
        leaving = {key[1] for key, body in there if key[0] == self._namespace and _is_deleted(body)}
        selection = select(manifests, before, self._known, leaving)
        same = selection.snapshot.version == self._selection.snapshot.version
        snapshot = self._selection.snapshot if same else stamped(selection.snapshot, at)
        self._selection = replace(selection, snapshot=snapshot)
        self._before = msgspec.json.encode(
            {
                f"{kind}/{name}": one.document
                for (kind, name), one in selection.accepted.items()
                if not selection.verdicts[kind, name].accepted
            }
        )

    # -- what is said about it ------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        pools = self._pools()
        for name, pool in pools.items():
            key, verdict = (self._namespace, name), self._pool_verdict(name, pool)
            if self._told.get(key) != verdict:
                self._told[key] = verdict
                self._on_pool_verdict(key, verdict)
        self._told = {key: verdict for key, verdict in self._told.items() if key[1] in pools}
        facts = Facts(
            self._selection,
            self._out,
            self._readiness,
            tuple(tenant["spec"].get("limitPolicy") for tenant in self._documents("Tenant").values()),
            {tenant.name: len(tenant.keys) for tenant in self._selection.snapshot.tenants},
        )
        self._statuses.tell(
            {
                (kind, name): report(facts, document, self._verdict(kind, name))
                for kind in REPORTED
                for name, document in self._documents(kind).items()
                if (kind, name) in self._selection.verdicts
            }
        )

    def _verdict(self, kind: str, name: str) -> Verdict:
        """A route whose pool waits for its lanes shall not read that there is no such pool."""
        verdict = self._selection.verdicts[kind, name]
        for pool in self._waiting:
            if kind == "ModelRoute" and verdict.rule == f"there is no WorkerPool `{pool}`":
                rule = f"WorkerPool `{pool}` waits for its Kafka topics"
                return replace(verdict, reason=Reason.NO_LANES, rule=rule)
        return verdict

    def _pool_verdict(self, name: str, pool: Document) -> Verdict:
        if (verdict := self._selection.verdicts.get(("WorkerPool", name))) is not None:
            return verdict
        trouble = self._lanes.troubles.get(name, "its Kafka topics are not made yet")
        return Verdict(
            generation_of(pool),
            None,
            Reason.NO_LANES,
            rule=trouble,
            consequence="it gets no tasks until they are there",
        )


def _fact(kind: str, body: Object) -> object:
    """What changes when the snapshot may have to."""
    metadata = body["metadata"]
    counted = None if kind == "Secret" else metadata.get("generation")
    return metadata.get("uid"), counted or metadata["resourceVersion"], _is_deleted(body)


def _is_deleted(body: Object) -> bool:
    return "deletionTimestamp" in body["metadata"]


def _document(kind: str, body: Object) -> Document:
    """The object as a manifest: without its status and what Kubernetes notes on it."""
    metadata = body["metadata"]
    noted = ("name", "namespace", "generation", "creationTimestamp", "uid")
    document = {"kind": kind, "metadata": {name: metadata[name] for name in noted if name in metadata}}
    if kind == "Secret":
        return document | {"apiVersion": "v1", "data": body.get("data") or {}}
    return document | {"apiVersion": "millrace.dev/v1alpha1", "spec": body.get("spec") or {}}


def _versions(raw: object) -> dict[Identity, Manifest]:
    """The versions that an operator kept; none if they cannot be read."""
    try:
        found = msgspec.json.decode(raw if isinstance(raw, bytes) else b"{}", type=dict[str, dict[str, Any]])
        return {identity_of(document): Manifest(name, 1, document) for name, document in found.items()}
    except (msgspec.DecodeError, LookupError, TypeError):
        return {}


def _is_readable(document: Document) -> bool:
    return not isinstance(read(Manifest("", 0, document)), Flaw)


class _LaneMaker:
    """Makes the lanes of pools, each in its own time."""

    def __init__(self, ensure: Callable[[str], Awaitable[None]], news: Callable[[], None]) -> None:
        self.made: set[str] = set()  # pools whose lanes are known to exist
        self.troubles: dict[str, str] = {}
        self.group: asyncio.TaskGroup | None = None
        self._ensure = ensure
        self._news = news
        self._tasks: dict[str, asyncio.Task[None]] = {}  # ended: made by this process

    def have(self, pools: Iterable[str]) -> bool:
        """Pools that are in a snapshot have lanes; was one of them not known?"""
        before = len(self.made)
        self.made.update(pools)
        return len(self.made) > before

    def want(self, pools: Mapping[str, Document]) -> None:
        """See that these have lanes; others are forgotten. Also for pools that have some: Kafka may have lost them."""
        for name in self._tasks.keys() - pools.keys():
            self._tasks.pop(name).cancel()
            self.troubles.pop(name, None)
            self.made.discard(name)
        assert self.group
        for name, pool in pools.items():
            if name not in self._tasks and _is_readable(pool):
                self._tasks[name] = self.group.create_task(self._make(name), name=f"lanes of {name}")

    def rest(self) -> None:
        """Try no more, until somebody wants them again."""
        for name, task in tuple(self._tasks.items()):
            if not task.done():
                task.cancel()
                del self._tasks[name]

    async def _make(self, pool: str) -> None:
        for delay in backoff(*RETRY_S):
            try:
                await self._ensure(pool)
                break
            except Exception as reason:  # noqa: BLE001 - whatever it is, other pools are not held up
                if self.troubles.get(pool) != str(reason):
                    log.warning("no lanes for pool %s: %s", pool, reason)
                    self.troubles[pool] = str(reason)
                    self._news()
            await asyncio.sleep(delay)
        self.troubles.pop(pool, None)
        self.made.add(pool)
        self._news()


# -- status -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What shall stand in an object's status."""

    uid: str
    generation: int
    fields: Mapping[str, Any]
    sayings: tuple[Saying, ...]

    @property
    def good(self) -> bool:
        """Nothing is wrong."""
        return all(saying.holds for saying in self.sayings)


@dataclass(frozen=True, slots=True)
class Facts:
    """What reports are made of."""

    selection: Selection
    out: Mapping[Identity, Document]
    pool_ready: Mapping[str, bool]
    policies: tuple[str | None, ...]  # that tenants name, one for each tenant
    keys: Mapping[str, int]  # of each tenant in the snapshot


def report(facts: Facts, document: Document, verdict: Verdict) -> Report:
    """About one route, tenant or policy."""
    identity = (document["kind"], document["metadata"]["name"])
    chosen = facts.selection.in_force.get(identity)
    sayings = [Saying(ConditionType.ACCEPTED, verdict.accepted, verdict.reason, verdict.message)]
    is_out = chosen is not None and facts.out.get(identity) == chosen
    sayings.append(_ready(chosen, verdict, facts.pool_ready, is_out=is_out))
    fields: dict[str, Any] = {}
    match identity[0]:
        case "ModelRoute":
            fields = _route_fields(chosen or document)
        case "Tenant":
            fields = {"keys": facts.keys.get(identity[1], 0)}
            sayings.append(_keys_found(facts.selection.keys.get(identity[1], ())))
        case "LimitPolicy":
            fields = {"tenants": facts.policies.count(identity[1])}
    return Report(document["metadata"].get("uid", ""), verdict.generation, fields, tuple(sayings))


def _ready(chosen: Document | None, verdict: Verdict, pool_ready: Mapping[str, bool], *, is_out: bool) -> Saying:
    def saying(reason: Reason, message: str) -> Saying:
        return Saying(ConditionType.READY, reason is Reason.PUBLISHED, reason, message)

    if chosen is None:
        return saying(Reason.NOT_PUBLISHED, "it is not accepted, and no version before it is in force")
    if not is_out:
        return saying(Reason.NOT_PUBLISHED, "Redis did not take the snapshot yet; services keep what they have")
    if chosen["kind"] == "ModelRoute":
        spec = chosen["spec"]
        pools = [*(target["pool"] for target in spec["targets"]), *filter(None, [spec.get("fallback")])]
        if not any(pool_ready.get(pool) for pool in pools):
            return saying(Reason.NO_WORKERS, f"no workers for it: {', '.join(pools)}")
    if verdict.in_force != verdict.generation:
        return saying(Reason.PUBLISHED, f"generation {verdict.in_force} is in the snapshot that all services read")
    return saying(Reason.PUBLISHED, "in the snapshot that all services read")


def _keys_found(troubles: tuple[KeyTrouble, ...]) -> Saying:
    if not troubles:
        return Saying(ConditionType.KEYS_FOUND, True, Reason.FOUND, "every key that it names is there")
    reason = Reason.NOT_FOUND if any(one.rule.startswith("there is no") for one in troubles) else Reason.INVALID
    told = "; ".join(f"key `{one.name}`: {one.rule}; {_outlook(one)}" for one in troubles)
    return Saying(ConditionType.KEYS_FOUND, False, reason, told[:4096])


def _outlook(trouble: KeyTrouble) -> str:
    return "it does not work" if trouble.until is None else f"it works until {clock(trouble.until)}"


def _route_fields(document: Document) -> dict[str, Any]:
    """The columns; of a route that cannot be read only what can be."""
    route = read(Manifest("", 0, document))
    if not isinstance(route, m.ModelRoute):
        return {"model": "", "targets": ""}
    total = sum(target.weight for target in route.spec.targets)
    shares = (f"{target.pool} {100 * target.weight / total:.3g} %" for target in route.spec.targets)
    return {"model": route.model, "targets": ", ".join(shares)[:2048]}


class _Statuses:
    """Writes what changed: each object's status at most once in `STATUS_GAP_S`, and always its last one."""

    def __init__(
        self, store: Store, cluster: Cluster, namespace: str, leading: Callable[[], bool], clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._namespace = namespace
        self._leading = leading
        self._now = clock
        self._reports: Mapping[Identity, Report] = {}
        self._since: dict[Identity, float] = {}  # those that are to be written, and since when
        self._wrote: dict[Identity, float] = {}
        self._wake = asyncio.Event()

    def tell(self, reports: Mapping[Identity, Report]) -> None:
        """All that there is to say now."""
        at = monotonic()
        for identity, told in reports.items():
            before = self._reports.get(identity)
            turned_bad = before is not None and before.good and not told.good
            if before != told and (turned_bad or identity not in self._since):
                self._since[identity] = at
        self._reports = reports
        for known in (self._since, self._wrote):
            for identity in known.keys() - reports.keys():
                del known[identity]
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            for identity in tuple(self._since):
                if identity in self._since and self._leading() and self._due_at(identity) <= monotonic():
                    await self._write(identity)
            waits = [self._due_at(identity) - monotonic() for identity in self._since]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(min(waits), 0.0) if waits and self._leading() else LOOK_S):
                    await self._wake.wait()

    def _due_at(self, identity: Identity) -> float:
        settled = self._since[identity] + (0.0 if self._reports[identity].good else SETTLE_S)
        return max(settled, self._wrote.get(identity, float("-inf")) + STATUS_GAP_S)

    async def _write(self, identity: Identity) -> None:
        kind, name = identity
        told, body = self._reports[identity], self._store.get(kind, (self._namespace, name))
        if body is None or body["metadata"].get("uid", "") != told.uid:
            del self._since[identity]  # another report comes, if it is there at all
            return
        before = body.get("status") or {}
        status = status_of(told, before, self._now())
        try:
            if not _equal(before, status):
                self._wrote[identity] = monotonic()
                await self._cluster.apply_status(kind, (self._namespace, name), status)
        except ApiError as refused:
            log.warning("status of %s/%s: %s", kind, name, refused)
            return
        if self._reports.get(identity) == told:
            self._since.pop(identity, None)


def status_of(told: Report, before: Mapping[str, Any], at: float) -> dict[str, Any]:
    """The status to write; the one before only says since when its conditions are as they are."""
    try:
        conditions = msgspec.convert(before.get("conditions") or (), tuple[Condition, ...])
    except msgspec.ValidationError:
        conditions = ()
    merged = merge(conditions, told.sayings, told.generation, at)
    return {"observedGeneration": told.generation, **told.fields, "conditions": msgspec.to_builtins(merged)}


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    def by_type(status: Mapping[str, Any]) -> dict[str, Any]:
        return {**status, "conditions": {told.get("type"): told for told in status.get("conditions") or ()}}

    return by_type(one) == by_type(other)
