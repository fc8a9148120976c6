"""What people apply is in the snapshot at once, and its status says what became of it."""

import asyncio
import base64
import contextlib
import hashlib
import logging
from itertools import count

import pytest

from millrace.config.v1.config_pb2 import Snapshot
from millrace_operator import publishing as p
from millrace_operator.core.reasons import Reason
from millrace_operator.core.selection import KEEP_S
from millrace_operator.ports import ApiError
from millrace_operator.publishing import Publishing
from millrace_operator.samples import Samples
from millrace_operator.store import Store, key_of
from services.chassis.clock import monotonic
from services.chassis.configuration import ConfigurationWatch
from services.chassis.resp import RedisAwayError, Resp
from services.pools.topics import Lanes, TopicsError
from tests.support.components import free_port
from tests.support.waiting import eventually

GROUP = "millrace.dev/v1alpha1"
SPACE = "models"
KEY = "mr_" + "a2" * 16
NUMBERS = count(1)
KINDS = ("WorkerPool", "ModelRoute", "Tenant", "LimitPolicy", "Secret")


def thing(kind, name, /, generation=1, uid="", **rest):
    number = next(NUMBERS)
    metadata = {"name": name, "namespace": SPACE, "uid": uid or f"{kind}-{name}", "resourceVersion": str(number)}
    if kind != "Secret":
        metadata["generation"] = generation
    return {"apiVersion": "v1" if kind == "Secret" else GROUP, "kind": kind, "metadata": metadata, **rest}


def pool(name="tiny", generation=1, slots=8):
    return thing("WorkerPool", name, generation, spec={"model": {"name": "tiny"}, "concurrency": {"slots": slots}})


def route(name="tiny", to="tiny", generation=1):
    return thing("ModelRoute", name, generation, spec={"targets": [{"pool": to}]})


def tenant(name="acme", generation=1, **spec):
    return thing("Tenant", name, generation, spec=spec)


def secret(name="acme", key=KEY):
    return thing("Secret", name, data={"key": base64.b64encode(key.encode()).decode()})


def deleting(body):
    metadata = body["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": str(next(NUMBERS))}
    return {**body, "metadata": metadata}


class MemoryRedis:
    """The calls that publishing makes."""

    def __init__(self):
        self.held, self.told, self.away, self.on_connected = {}, [], False, []

    async def call(self, *command):
        return (await self.pipe(command))[0]

    async def pipe(self, *commands):
        if self.away:
            raise RedisAwayError("no connection")
        return [self._one(*command) for command in commands]

    def _one(self, name, key, value=None):
        match name:
            case "GET":
                return self.held.get(key)
            case "SET":
                self.held[key] = value
            case "PUBLISH":
                self.told.append(value)
        return b"OK"

    @property
    def snapshot(self):
        return Snapshot.FromString(self.held.get("cfg:snapshot", b""))


class MemoryCluster:
    """Takes statuses as an API server would, and tells the store about them."""

    def __init__(self, store):
        self.store, self.statuses, self.refuses, self.objects = store, [], None, {}
        self.served = dict.fromkeys(KINDS[:4], "digest")

    async def apply_status(self, kind, key, status):
        if self.refuses:
            raise self.refuses
        body = self.store.get(kind, key)
        metadata = body["metadata"] | {"resourceVersion": str(next(NUMBERS))}
        self.statuses.append((kind, key[1], status))
        self.store.put(kind, {**body, "metadata": metadata, "status": status})

    async def digests(self):
        return self.served

    async def get(self, kind, key):
        return self.objects.get((kind, key))

    async def create(self, manifest):
        if self.refuses:
            raise self.refuses
        where = manifest["kind"], key_of(manifest)
        if where in self.objects:
            raise ApiError(409, "already exists")
        self.objects[where] = manifest

    async def apply(self, manifest):
        self.objects[manifest["kind"], key_of(manifest)] = manifest


class Room:
    """One operator's part, and what it is connected to."""

    def __init__(self, *things, redis=None, lead=True, ensure=None, **options):
        self.store = Store(KINDS)
        self.cluster = MemoryCluster(self.store)
        self.redis = redis or MemoryRedis()
        self.lead, self.verdicts, self.lanes = lead, {}, []
        self.things = things
        self.publishing = Publishing(
            self.store, self.cluster, self.redis, namespace=SPACE, leading=lambda: self.lead,
            ensure_topics=ensure or self._ensure, on_pool_verdict=self._verdict, **options,
        )  # fmt: skip

    async def _ensure(self, pool):
        self.lanes.append(pool)

    def _verdict(self, key, verdict):
        self.verdicts[key[1]] = verdict

    async def __aenter__(self):
        self.running = asyncio.create_task(self.publishing.run())
        for kind in KINDS:
            self.store.replace(kind, [one for one in self.things if one["kind"] == kind])
        return self

    async def __aexit__(self, *_):
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running

    def put(self, *bodies):
        for body in bodies:
            before = self.store.get(body["kind"], key_of(body)) or {}
            self.store.put(body["kind"], {"status": before.get("status", {}), **body})

    def drop(self, kind, name):
        self.store.drop(kind, thing(kind, name))

    @property
    def models(self):
        return [route.model for route in self.redis.snapshot.routes]

    @property
    def names(self):
        return [one.name for one in self.redis.snapshot.tenants]

    @property
    def pools(self):
        return [one.name for one in self.redis.snapshot.pools]

    def status(self, kind, name):
        """As it stands in the store, conditions by type."""
        status = dict((self.store.get(kind, (SPACE, name)) or {}).get("status") or {})
        return status | {one["type"]: one for one in status.pop("conditions", [])}


@pytest.fixture
def quick(monkeypatch):
    """Waits of a tenth."""
    for name in ("STATUS_GAP_S", "SETTLE_S", "LOOK_S"):
        monkeypatch.setattr(p, name, getattr(p, name) / 10)
    monkeypatch.setattr(p, "RETRY_S", (0.01, 0.02))


@pytest.fixture
async def real(redis_url):
    """A connection to a real Redis, in a database that others do not use."""
    url = redis_url.rsplit("/", 1)[0] + "/8"
    async with Resp(url) as redis:
        await redis.wait_connected(10)
        await redis.call("FLUSHDB")
        yield url, redis


@pytest.mark.real
async def test_an_applied_tenant_is_with_the_services_within_100_ms(real):
    """From the store's event to the watch that every service has; a deleted one is out in the same time."""
    url, redis = real
    async with Room(pool(), route(), redis=redis) as room, ConfigurationWatch(url, Snapshot.FromString) as watch:
        await eventually(lambda: watch.current and watch.current.routes)
        await asyncio.sleep(0.1)
        times = []
        for number in range(5):
            for applied in (True, False):
                before, at = watch.current, monotonic()
                if applied:
                    room.put(tenant(generation=number + 1))
                else:
                    room.drop("Tenant", "acme")
                await eventually(lambda before=before: watch.current is not before)
                times.append(monotonic() - at)
                assert bool(watch.current.tenants) == applied
                await asyncio.sleep(0.07)
        assert sorted(times)[len(times) // 2] < 0.1, times


async def test_changes_in_a_burst_are_published_together():
    """The first at once, the others with the next."""
    async with Room() as room:
        await eventually(lambda: room.redis.told)
        await asyncio.sleep(0.1)
        for number in range(30):
            room.put(tenant(f"t{number}"))
            await asyncio.sleep(0.002)
        await eventually(lambda: len(room.names) == 30)
        assert len(room.redis.told) < 10


@pytest.mark.parametrize("loss", [None, b"\xff", Snapshot(version="older").SerializeToString()])
async def test_a_redis_that_lost_the_snapshot_gets_it_from_the_operator_again(quick, loss):
    """Also one that came back with an older one, or with nonsense."""
    async with Room(tenant()) as room:
        await eventually(lambda: room.names)
        held = room.redis.held["cfg:snapshot"]
        room.redis.held["cfg:snapshot"] = loss
        await eventually(lambda: room.redis.held["cfg:snapshot"] == held)
        assert room.redis.told == [room.redis.snapshot.version] * 2


async def test_a_redis_that_is_away_is_said_once_and_made_up_for(quick, caplog):
    """/readyz says it as well; the news of a tenant in it wait."""
    async with Room(tenant()) as room:
        await eventually(room.publishing.published)
        room.redis.away = True
        await eventually(lambda: not room.publishing.published())
        room.put(tenant("late"))
        await eventually(lambda: room.status("Tenant", "late"))
        ready = room.status("Tenant", "late")["Ready"]
        assert (ready["status"], ready["reason"]) == ("False", Reason.NOT_PUBLISHED)
        assert room.status("Tenant", "acme")["Ready"]["status"] == "True"
        room.redis.away = False
        await eventually(lambda: "late" in room.names and room.publishing.published())
        await eventually(lambda: room.status("Tenant", "late")["Ready"]["status"] == "True")
    assert sum("Redis is away" in one.message for one in caplog.records) == 1


async def test_an_equal_snapshot_is_left_alone_by_the_next_operator():
    """Nobody is told twice."""
    async with Room(pool(), tenant()) as room:
        await eventually(lambda: room.names)
    async with Room(pool(), tenant(), redis=room.redis) as other:
        await eventually(other.publishing.published)
        assert len(room.redis.told) == 1


async def test_a_standby_writes_nothing_and_goes_on_from_the_same_state(quick):
    """Neither a snapshot nor a status nor a topic; once it leads it does all of it."""
    async with Room(pool(), tenant(generation=3), lead=False) as room:
        await asyncio.sleep(0.2)
        room.put(tenant(generation=4, limitPolicy="gone"))
        await asyncio.sleep(0.1)
        assert (room.redis.held, room.cluster.statuses, room.lanes) == ({}, [], [])
        assert room.publishing.published()
        room.lead = True
        await eventually(lambda: room.pools == ["tiny"] and room.names == ["acme"])
        await eventually(lambda: room.status("Tenant", "acme"))
        assert "(generation 3) stays in force" in room.status("Tenant", "acme")["Accepted"]["message"]


async def test_a_pool_that_is_being_deleted_stays_until_it_is_gone():
    """It works off what waits, and no route leads there any more; a tenant is out as soon as somebody deletes it."""
    first, other = pool(), tenant()
    async with Room(first, route(), other) as room:
        await eventually(lambda: room.names and room.models == ["tiny"])
        room.put(deleting(first), deleting(other))
        await eventually(lambda: not room.names and not room.models)
        assert room.pools == ["tiny"]
        room.drop("WorkerPool", "tiny")
        await eventually(lambda: not room.pools)


# -- lanes --------------------------------------------------------------------------------------------------------------


async def test_a_pool_enters_the_snapshot_when_its_lanes_exist(quick):
    """Whoever knows the pool can write to it. Others are not held up, and everybody is told what they wait for."""
    kafka = {"trouble": "Kafka cannot be reached"}

    async def ensure(pool):
        if pool == "new" and kafka["trouble"]:
            raise TopicsError(kafka["trouble"])

    async with Room(pool(), route(), pool("new"), route("new", "new"), ensure=ensure) as room:
        await eventually(lambda: room.pools == ["tiny"])
        await eventually(lambda: room.verdicts["new"].rule == "Kafka cannot be reached")
        assert room.verdicts["new"].reason is Reason.NO_LANES
        assert room.verdicts["tiny"].accepted
        await eventually(lambda: room.status("ModelRoute", "new"))
        assert "WorkerPool `new` waits for its Kafka topics" in room.status("ModelRoute", "new")["Accepted"]["message"]
        kafka["trouble"] = ""
        await eventually(lambda: room.pools == ["new", "tiny"] and len(room.redis.snapshot.routes) == 2)
        await eventually(lambda: room.verdicts["new"].accepted)


async def test_pools_in_the_snapshot_wait_for_no_lanes_when_the_operator_starts(quick):
    """A broker that is away at that moment takes nobody out of service."""
    async with Room(pool(), route()) as room:
        await eventually(lambda: room.pools)

    async def refuse(pool):
        raise TopicsError("Kafka cannot be reached")

    async with Room(pool(), route(), tenant(), redis=room.redis, ensure=refuse) as other:
        await eventually(lambda: other.names)
        assert other.pools == ["tiny"]
        assert other.verdicts["tiny"].accepted


async def test_who_does_not_lead_any_more_makes_no_lanes(quick):
    """A try that failed is not repeated, until it leads again."""
    tries = []

    async def refuse(pool):
        tries.append(pool)
        raise TopicsError("Kafka cannot be reached")

    async with Room(pool(), ensure=refuse) as room:
        await eventually(lambda: len(tries) > 2)
        room.lead = False
        await asyncio.sleep(3 * p.LOOK_S)
        before = len(tries)
        await asyncio.sleep(0.1)
        assert len(tries) == before
        room.lead = True
        await eventually(lambda: len(tries) > before)


async def test_verdicts_of_pools_are_told_when_they_are_new(quick):
    """With the generation that they are about; a status that is written makes none."""
    async with Room(pool()) as room:
        await eventually(lambda: room.verdicts.get("tiny") and room.verdicts["tiny"].accepted)
        room.put(pool(generation=2, slots=0))
        await eventually(lambda: room.verdicts["tiny"].generation == 2)
        assert room.verdicts["tiny"].message.startswith(
            "spec.concurrency.slots: Expected `int` >= 1; the version before"
        )
        assert room.redis.snapshot.pools[0].slots == 8


@pytest.mark.real
async def test_lanes_are_made_in_a_real_kafka(kafka_bootstrap):
    """Topics and first offsets; a second time nothing happens. What Kafka refuses is said in its own words."""
    lanes = Lanes(kafka_bootstrap, partitions=2, replication=1)
    await lanes.ensure("fresh")
    await lanes.ensure("fresh")
    with pytest.raises(TopicsError, match=r"^Kafka refuses: .*[Rr]eplication"):
        await Lanes(kafka_bootstrap, partitions=2, replication=3).ensure("triple")


async def test_a_kafka_that_is_away_is_said_in_a_sentence():
    """After the wait that was given."""
    lanes = Lanes(f"127.0.0.1:{free_port()}", partitions=1, replication=1, timeout_s=0.5)
    with pytest.raises(TopicsError, match=r"^Kafka cannot be reached$"):
        await lanes.ensure("tiny")


# -- API keys -----------------------------------------------------------------------------------------------------------


def referring(generation=1):
    return tenant(generation=generation, keys=[{"name": "k1", "secretRef": {"name": "acme"}}])


async def test_a_key_outlives_its_secret_for_an_hour_also_over_a_restart(quick):
    """The tenant says until when; the hour of an operator that starts begins with it. A Secret that comes back ends it."""
    at = [1000.0]
    digest = hashlib.sha256(KEY.encode()).digest()

    def keys(room):
        return [key.sha256 for one in room.redis.snapshot.tenants for key in one.keys]

    async with Room(secret(), referring(), clock=lambda: at[0]) as room:
        await eventually(lambda: keys(room) == [digest])
        room.drop("Secret", "acme")
        await eventually(lambda: room.status("Tenant", "acme").get("KeysFound", {}).get("status") == "False")
        told = room.status("Tenant", "acme")["KeysFound"]
        assert told["message"] == "key `k1`: there is no Secret `acme`; it works until 01:16:40Z"
        assert room.status("Tenant", "acme")["Ready"]["status"] == "True"
        assert keys(room) == [digest]
    at[0] = 2000.0
    async with Room(referring(), redis=room.redis, clock=lambda: at[0]) as room:
        await eventually(lambda: room.status("Tenant", "acme"))
        assert "it works until 01:33:20Z" in room.status("Tenant", "acme")["KeysFound"]["message"]
        assert keys(room) == [digest]
        at[0] += KEEP_S
        await eventually(lambda: not keys(room))
        await eventually(lambda: room.status("Tenant", "acme")["Ready"]["status"] == "False")
        room.put(secret())
        await eventually(lambda: keys(room) == [digest])
        await eventually(lambda: room.status("Tenant", "acme")["KeysFound"]["status"] == "True")


async def test_a_secret_that_changes_counts_at_once():
    """The old key is refused from then on."""
    async with Room(secret(), referring()) as room:
        await eventually(lambda: room.names)
        other = "mr_" + "b3" * 16
        room.put(secret(key=other))
        digest = hashlib.sha256(other.encode()).digest()
        await eventually(lambda: room.redis.snapshot.tenants[0].keys[0].sha256 == digest, within_s=0.5)
        assert KEY.encode() not in b"".join(room.redis.held.values())


async def test_the_version_before_outlives_a_restart(quick):
    """A typing error on Monday is no outage at Tuesday's upgrade."""
    async with Room(tenant(generation=3, weight=2.0)) as room:
        await eventually(lambda: room.names)
        room.put(tenant(generation=4, limitPolicy="gone"))
        await eventually(lambda: b"acme" in room.redis.held["cfg:before"])
    async with Room(tenant(generation=4, limitPolicy="gone"), redis=room.redis) as other:
        await eventually(other.publishing.published)
        assert other.redis.snapshot.tenants[0].weight == 2
        other.put(tenant(generation=5))
        await eventually(lambda: other.redis.held["cfg:before"] == b"{}")
        assert other.redis.snapshot.tenants[0].weight == 1


# -- status -------------------------------------------------------------------------------------------------------------


async def test_each_kind_says_what_its_columns_show(quick):
    """Keys that work, pools and shares, tenants of a policy; a status that is written changes nothing again."""
    things = [
        pool(), pool("spare"), thing("LimitPolicy", "basic", spec={"perKey": {"requests": {"rate": 5}}}),
        thing("ModelRoute", "tiny", spec={"targets": [{"pool": "tiny", "weight": 9}, {"pool": "spare"}]}),
        tenant(limitPolicy="basic", keys=[{"name": "a", "sha256": "ab" * 32}, {"name": "b", "sha256": "cd" * 32}]),
    ]  # fmt: skip
    async with Room(*things) as room:
        await eventually(lambda: room.status("LimitPolicy", "basic").get("Ready", {}).get("status") == "True")
        await eventually(lambda: room.status("ModelRoute", "tiny").get("Ready", {}).get("status") == "True")
        await eventually(lambda: room.status("Tenant", "acme").get("Ready", {}).get("status") == "True")
        assert room.status("Tenant", "acme")["keys"] == 2
        assert room.status("ModelRoute", "tiny")["targets"] == "tiny 90 %, spare 10 %"
        assert room.status("ModelRoute", "tiny")["model"] == "tiny"
        assert room.status("LimitPolicy", "basic")["tenants"] == 1
        assert room.status("Tenant", "acme")["observedGeneration"] == 1
        written = len(room.cluster.statuses), len(room.redis.told)
        await asyncio.sleep(0.2)
        assert (len(room.cluster.statuses), len(room.redis.told)) == written
        assert {kind for kind, _, _ in room.cluster.statuses} == {"ModelRoute", "Tenant", "LimitPolicy"}


async def test_a_route_without_workers_is_not_ready(quick):
    """It is once a pool takes tasks; its Accepted does not move."""
    serving = set()
    async with Room(pool(), route(), pool_ready=serving.__contains__) as room:
        await eventually(lambda: room.status("ModelRoute", "tiny"))
        status = room.status("ModelRoute", "tiny")
        assert (status["Accepted"]["status"], status["Ready"]["reason"]) == ("True", Reason.NO_WORKERS)
        serving.add("tiny")
        await eventually(lambda: room.status("ModelRoute", "tiny")["Ready"]["status"] == "True")


async def test_a_status_is_written_at_intervals_and_the_last_one_always(quick):
    """However often its object changes."""
    async with Room(tenant()) as room:
        await eventually(lambda: room.cluster.statuses)
        began = monotonic()
        for generation in range(2, 40):
            room.put(tenant(generation=generation))
            await asyncio.sleep(0.02)
        await eventually(lambda: room.status("Tenant", "acme")["observedGeneration"] == 39)
        assert len(room.cluster.statuses) <= 2 + (monotonic() - began) / p.STATUS_GAP_S
        times = {status["conditions"][0]["lastTransitionTime"] for _, _, status in room.cluster.statuses}
        assert len(times) == 1


async def test_objects_of_one_apply_may_come_in_any_order(quick, monkeypatch):
    """A status that would be wrong in a moment is not written; good news does not wait for that."""
    monkeypatch.setattr(p, "SETTLE_S", 5.0)
    async with Room() as room:
        await eventually(lambda: room.redis.told)
        room.put(tenant(limitPolicy="basic", models=["tiny"]))
        room.put(route())
        await asyncio.sleep(0.03)
        room.put(thing("LimitPolicy", "basic", spec={}))
        room.put(pool())
        await eventually(lambda: room.status("Tenant", "acme"))
        assert all(told["status"] == "True" for _, _, status in room.cluster.statuses for told in status["conditions"])


async def test_a_refused_status_is_tried_again(quick, caplog):
    """Later; publishing goes on."""
    async with Room() as room:
        room.cluster.refuses = ApiError(0, "the API server is away")
        room.put(tenant())
        await eventually(lambda: room.names and "the API server is away" in caplog.text)
        room.cluster.refuses = None
        await eventually(lambda: room.status("Tenant", "acme"))


# -- samples ------------------------------------------------------------------------------------------------------------

SAMPLES = f"""
apiVersion: {GROUP}
kind: WorkerPool
metadata: {{name: tiny}}
spec: {{model: {{name: tiny}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: key}}
stringData: {{key: {KEY}}}
"""


async def test_samples_are_created_once_and_then_belong_to_people(tmp_path, monkeypatch):
    """Once the definitions are served. What exists is left as it is, and what was deleted does not come back."""
    monkeypatch.setattr("millrace_operator.samples.RETRY_S", (0.01, 0.02))
    (tmp_path / "all.yaml").write_text(SAMPLES)
    cluster = MemoryCluster(Store(KINDS))
    served, cluster.served = cluster.served, {}
    samples = Samples(tmp_path, cluster, namespace=SPACE, ledger="ledger", leading=lambda: True)
    running = asyncio.create_task(samples.run())
    await asyncio.sleep(0.05)
    mine = cluster.objects["Secret", (SPACE, "key")] = {"kind": "Secret", "mine": True}
    assert set(cluster.objects) == {("Secret", (SPACE, "key"))}
    cluster.served = served
    await asyncio.wait_for(running, 5)
    created = cluster.objects["WorkerPool", (SPACE, "tiny")]
    assert created["metadata"]["annotations"] == {"millrace.dev/sample": "true"}
    assert cluster.objects["Secret", (SPACE, "key")] is mine
    assert set(cluster.objects["ConfigMap", (SPACE, "ledger")]["data"]) == {"WorkerPool.tiny", "Secret.key"}
    del cluster.objects["WorkerPool", (SPACE, "tiny")]
    await asyncio.wait_for(Samples(tmp_path, cluster, namespace=SPACE, ledger="ledger", leading=lambda: True).run(), 5)
    assert ("WorkerPool", (SPACE, "tiny")) not in cluster.objects


async def test_a_wrong_sample_does_not_hold_up_the_others(tmp_path, caplog):
    """It is named in the log, and a refused one is tried again."""
    (tmp_path / "all.yaml").write_text(f"kind: Widget\n---\n- 1\n---{SAMPLES}")
    (tmp_path / "bad.yaml").write_text("kind: [")
    cluster = MemoryCluster(Store(KINDS))
    with caplog.at_level(logging.WARNING):
        await asyncio.wait_for(
            Samples(tmp_path, cluster, namespace=SPACE, ledger="ledger", leading=lambda: True).run(), 5
        )
    assert len(cluster.objects) == 3
    assert "bad.yaml" in caplog.text
    assert "all.yaml#1" in caplog.text
