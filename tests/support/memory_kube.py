"""A cluster in memory and virtual time: what the API server keeps, what controllers do, workers that run tasks, their dispatcher.

One pool's world as far as its operator can see it. Everything happens in `tick`, once a second; what the operator writes takes
effect at once. Tasks come as `come` says and run where there is a free slot on a worker that is ready and does not drain.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from millrace_operator.core.definitions import digests
from millrace_operator.core.desired import POOL_LABEL
from millrace_operator.core.draining import COST, MARK
from millrace_operator.ports import ApiError, Signal

BELIEF_S = 60.0  # how long a worker obeys one word to drain
SERVICE_S = 6.0  # a task, on average

Json = dict[str, Any]


def at(instant: float) -> str:
    """As Kubernetes writes it."""
    return datetime.fromtimestamp(instant, UTC).isoformat().replace("+00:00", "Z")


@dataclass
class Worker:
    """One pod's."""

    running: list[float] = field(default_factory=list)  # instants at which its tasks end
    drains_until: float = 0.0
    drained: bool = False  # was told to, at least once


class MemoryKube:
    """`Cluster` and `Drains` and `Signals` at once; the objects by kind and key are in `objects`.

    `made` and `deleted` are pods; `killed` are tasks of workers that were deleted under them; `scaled` are the
    orders by kind: when, and how many replicas.
    """

    def __init__(self, now: float, *, slots: int, ready_s: float, come: Callable[[float], int]) -> None:
        self.now, self.began = now, now
        self.slots, self.ready_s, self.come = slots, ready_s, come
        self.objects: dict[str, dict[tuple[str, str], Json]] = {}
        self.workers: dict[str, Worker] = {}  # by address
        self.waiting = 0
        self.arrived = self.ended = self.killed = 0
        self.made: list[str] = []
        self.deleted: list[str] = []
        self.undrained: list[str] = []  # deleted with a mark, and nobody had told the worker
        self.scaled: dict[str, list[tuple[float, int]]] = {"WorkerPool": [], "Deployment": []}
        self._versions, self._lengths = itertools.count(1), 0

    # -- the API server ---------------------------------------------------------------------------------------------------

    def all(self, kind: str) -> list[Json]:
        """Objects of a kind."""
        return list(self.objects.get(kind, {}).values())

    def put(self, kind: str, key: tuple[str, str], body: Mapping[str, Any]) -> Json:
        """Write an object, if that changes anything. One that is deleted and that no finalizer holds goes."""
        kept = self.objects.setdefault(kind, {})
        before = kept.get(key)
        new = {"uid": f"{kind}-{next(self._versions)}", "creationTimestamp": at(self.now), "generation": 1}
        known = {name: before["metadata"][name] for name in new} if before else new
        metadata = {"namespace": key[0], "name": key[1], **body["metadata"], **known}
        metadata["resourceVersion"] = before["metadata"]["resourceVersion"] if before else ""
        made = {**body, "kind": kind, "metadata": metadata}
        if made == before:
            return made
        metadata["resourceVersion"] = str(next(self._versions))
        metadata["generation"] += bool(before and before.get("spec") != made.get("spec"))
        kept[key] = made
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            del kept[key]
        return made

    def delete(self, kind: str, key: tuple[str, str]) -> None:
        """As by kubectl: finalizers hold it."""
        body = self.objects[kind][key]
        self.put(kind, key, {**body, "metadata": {**body["metadata"], "deletionTimestamp": at(self.now)}})

    async def list(self, kind: str) -> Sequence[Json]:
        return self.all(kind)

    async def get(self, kind: str, key: tuple[str, str]) -> Json | None:
        return self.objects.get(kind, {}).get(key)

    async def digests(self) -> Mapping[str, str]:
        return digests()

    async def apply(self, manifest: Mapping[str, Any], *, manager: str = "", force: bool = False) -> Json:
        metadata = manifest["metadata"]
        kind, key = manifest["kind"], (metadata["namespace"], metadata["name"])
        before = self.objects.get(kind, {}).get(key, {})
        body: Json = {**before, **manifest, "metadata": {**before.get("metadata", {}), **metadata}}
        if kind == "Deployment":  # replicas stay whose they are
            body["spec"] = {"replicas": 1, **before.get("spec", {}), **manifest["spec"]}
        return self.put(kind, key, body)

    async def apply_status(self, kind: str, key: tuple[str, str], status: Mapping[str, Any]) -> None:
        if body := await self.get(kind, key):
            self.put(kind, key, {**body, "status": dict(status)})

    async def patch(self, kind: str, key: tuple[str, str], patch: Mapping[str, Any]) -> None:
        if body := await self.get(kind, key):
            version = patch["metadata"].get("resourceVersion")
            if version not in (None, body["metadata"]["resourceVersion"]):
                raise ApiError(409, "the object has been modified")
            self.put(kind, key, _merged(body, patch))

    async def scale(self, kind: str, key: tuple[str, str], replicas: int) -> None:
        self.scaled[kind].append((self.now, replicas))
        if body := await self.get(kind, key):
            self.put(kind, key, {**body, "spec": {**body["spec"], "replicas": replicas}})

    async def event(self, about: Mapping[str, Any], reason: str, message: str, *, warning: bool = False) -> None:
        pass

    # -- workers and their dispatcher -------------------------------------------------------------------------------------

    async def look(self, address: str) -> int | None:
        worker = self.workers.get(address)
        return None if worker is None else len(worker.running)

    async def begin(self, address: str) -> int | None:
        if worker := self.workers.get(address):
            worker.drains_until, worker.drained = self.now + BELIEF_S, True
        return await self.look(address)

    async def end(self, address: str) -> int | None:
        if worker := self.workers.get(address):
            worker.drains_until = 0.0
        return await self.look(address)

    def latest(self, pool: str) -> Signal:
        """What the dispatcher says: always fresh."""
        busy = sum(len(worker.running) for worker in self.workers.values())
        return Signal(
            age_s=0.0, epoch=1, waiting=self.waiting, work_s=self.waiting * SERVICE_S, busy=busy, service_s=SERVICE_S,
            arrived=self.arrived, ended=self.ended,
        )  # fmt: skip

    # -- what happens by itself -------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """A second passes."""
        self.now += 1.0
        came = self.come(self.now - self.began)
        self.arrived, self.waiting = self.arrived + came, self.waiting + came
        for pod in self.all("Pod"):
            self._work(pod)
        self._collect()
        for deployment in self.all("Deployment"):
            self._carry_out(deployment)

    def _work(self, pod: Json) -> None:
        metadata, address = pod["metadata"], pod["status"]["podIP"]
        worker = self.workers[address]
        going = [end for end in worker.running if end > self.now]
        self.ended += len(worker.running) - len(going)
        worker.running = going
        begun = self.now >= datetime.fromisoformat(metadata["creationTimestamp"]).timestamp() + self.ready_s
        ready = begun and worker.drains_until <= self.now
        while ready and self.waiting and len(worker.running) < self.slots:
            self.waiting -= 1
            self._lengths = (self._lengths + 5) % 9  # 2 to 10 s, each as often
            worker.running.append(self.now + 2.0 + self._lengths)
        if _ready(pod) != ready:
            condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": at(self.now)}
            status = {**pod["status"], "conditions": [condition]}
            self.put("Pod", (metadata["namespace"], metadata["name"]), {**pod, "status": status})

    def _carry_out(self, deployment: Json) -> None:
        pods, replicas = self.all("Pod"), deployment["spec"]["replicas"]
        for _ in range(len(pods), replicas):
            self._make(deployment)
        for pod in sorted(pods, key=_rank)[: max(len(pods) - replicas, 0)]:
            self._remove(pod)

    def _make(self, deployment: Json) -> None:
        key = (deployment["metadata"]["namespace"], f"{deployment['metadata']['name']}-{len(self.made) + 1}")
        address = f"10.0.0.{len(self.made) + 1}"
        self.made.append(key[1])
        self.workers[address] = Worker()
        labels = {POOL_LABEL: deployment["metadata"]["labels"][POOL_LABEL]}
        running = {"podIP": address, "containerStatuses": [{"name": "worker", "state": {"running": {}}}]}
        owners = [{"uid": deployment["metadata"]["uid"]}]
        self.put("Pod", key, {"metadata": {"labels": labels, "ownerReferences": owners}, "status": running})

    def _remove(self, pod: Json) -> None:
        metadata = pod["metadata"]
        worker = self.workers.pop(pod["status"]["podIP"])
        self.deleted.append(metadata["name"])
        self.killed += len(worker.running)
        if MARK in metadata.get("annotations", {}) and not worker.drained:
            self.undrained.append(metadata["name"])
        del self.objects["Pod"][metadata["namespace"], metadata["name"]]

    def _collect(self) -> None:
        """Garbage: what somebody owned who is not there any more."""
        there = {body["metadata"]["uid"] for kept in self.objects.values() for body in kept.values()}
        for kind, kept in self.objects.items():
            for key, body in tuple(kept.items()):
                owners = body["metadata"].get("ownerReferences", ())
                if owners and not any(owner["uid"] in there for owner in owners):
                    if kind == "Pod":
                        self._remove(body)
                    else:
                        del kept[key]


def _ready(pod: Mapping[str, Any]) -> bool:
    return any(condition["status"] == "True" for condition in pod["status"].get("conditions", ()))


def _rank(pod: Mapping[str, Any]) -> tuple[bool, float, str]:
    """Whom a ReplicaSet deletes first: not ready, then the lowest deletion cost, then the newest."""
    metadata = pod["metadata"]
    newest = "".join(chr(255 - ord(letter)) for letter in metadata["creationTimestamp"])
    return _ready(pod), float(metadata.get("annotations", {}).get(COST, 0)), newest


def _merged(body: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """By a JSON merge patch."""
    merged = dict(body)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            merged[name] = _merged(merged.get(name, {}), value)
        else:
            merged[name] = value
    return merged
