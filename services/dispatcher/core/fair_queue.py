"""Whose turn is it?

Critical work first. Below it the classes share by weight, and inside a class the tenants share by weight, both counted in token
cost and both by start-time fair queueing (P. Goyal, H. Vin, H. Cheng, SIGCOMM 1996): the turn of whoever was served least is
next. A task is charged its estimate when it is taken, corrected while it runs and when it ends, as Kubernetes' API priority
and fairness does for work of unknown length. A tenant that becomes busy is lifted to the virtual time of its class: idle time
is not banked (Y. Sheng et al., "Fairness in serving large language models", OSDI 2024). All of it is O(log tenants).

>>> queue = FairQueue()
>>> for task in ("a1", "a2", "a3"):
...     queue.put(task, "anna", PriorityClass.PRIORITY_CLASS_STANDARD, 100.0)
>>> queue.put("b1", "bert", PriorityClass.PRIORITY_CLASS_STANDARD, 100.0)
>>> [queue.take() for _ in range(5)]
['a1', 'b1', 'a2', 'a3', None]
"""

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from millrace.task.v1.task_pb2 import PriorityClass
from services.pools.core.lanes import CLASSES

# An output token costs about two prompt tokens: it takes a decoding step of its own, a prompt is read in parallel.
PROMPT_WEIGHT: Final = 1.0
OUTPUT_WEIGHT: Final = 2.0

# Standard and batch share 9 : 1; background has a floor of 5 % of what the three get while all are busy.
CLASS_WEIGHTS: Final[dict[PriorityClass, float]] = {
    PriorityClass.PRIORITY_CLASS_STANDARD: 9.0,
    PriorityClass.PRIORITY_CLASS_BATCH: 1.0,
    PriorityClass.PRIORITY_CLASS_BACKGROUND: (9.0 + 1.0) * 0.05 / 0.95,
}


def token_cost(prompt_tokens: int, output_tokens: int) -> float:
    """What a task costs its tenant, in prompt tokens; never nothing.

    >>> token_cost(100, 16)
    132.0
    """
    return max(PROMPT_WEIGHT * prompt_tokens + OUTPUT_WEIGHT * output_tokens, 1.0)


@dataclass(slots=True, eq=False)
class _Tenant:
    """One tenant in one class. `turn` is the virtual time at which its next task may start."""

    name: str
    weight: float
    turn: float
    waiting: "OrderedDict[str, _Waiting]"
    running: int = 0
    key: float | None = None  # under which it stands in the class's heap; `turn` may have risen since
    tail_ticket: int = 0
    tail_cost: float = 0.0


@dataclass(slots=True, eq=False)
class _Waiting:
    """`ticket` and `before` count tasks and cost along the tenant's queue; only differences mean anything."""

    lane: "_Class"
    tenant: _Tenant
    cost: float
    ticket: int
    before: float


@dataclass(slots=True, eq=False)
class _Charge:
    lane: "_Class"
    tenant: _Tenant
    cost: float


class _Class:
    """The tenants of one class and its virtual time."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.turn = 0.0  # between the classes
        self.now = 0.0  # between the tenants: the turn of the task taken last
        self.tenants: dict[str, _Tenant] = {}
        self.heap: list[tuple[float, int, _Tenant]] = []
        self.running = 0
        self.waiting = 0
        self.waiting_cost = 0.0
        self.busy_weight = 0.0
        self._sequence = itertools.count()
        self._sweep_at = 1024

    def tenant(self, name: str, weight: float) -> _Tenant:
        tenant = self.tenants.get(name)
        if tenant is None:
            if len(self.tenants) >= self._sweep_at:
                self._sweep()
            tenant = self.tenants[name] = _Tenant(name, weight, self.now, OrderedDict())
        return tenant

    def place(self, tenant: _Tenant) -> None:
        """Put a busy tenant where its turn is. One whose turn rose is moved when it is met."""
        if tenant.key is not None and tenant.key <= tenant.turn:
            return
        if len(self.heap) > 64 + 4 * len(self.tenants):
            self.heap = [entry for entry in self.heap if entry[0] == entry[2].key]
            heapq.heapify(self.heap)
        tenant.key = tenant.turn
        heapq.heappush(self.heap, (tenant.turn, next(self._sequence), tenant))

    def next_tenant(self) -> _Tenant:
        """The busy tenant with the smallest turn; there is one."""
        while True:
            key, _, tenant = heapq.heappop(self.heap)
            if key != tenant.key:
                continue
            tenant.key = None
            if not tenant.waiting:
                continue
            if tenant.turn <= key:
                return tenant
            self.place(tenant)

    def _sweep(self) -> None:
        """Forget tenants that neither wait nor run nor owe."""
        for tenant in [t for t in self.tenants.values() if not t.waiting and not t.running and t.turn <= self.now]:
            del self.tenants[tenant.name]
        self._sweep_at = 2 * len(self.tenants) + 1024


class FairQueue:
    """The waiting tasks of a pool and what the running ones are charged."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = weights or {}
        self._classes = {c: _Class(CLASS_WEIGHTS.get(c, 1.0)) for c in CLASSES}
        self._critical, *self._shared = self._classes.values()
        self._now = 0.0  # between the classes
        self._waiting: dict[str, _Waiting] = {}
        self._charges: dict[str, _Charge] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, task: str) -> bool:
        return task in self._waiting

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Tenants' shares within a class from now on; who is not named has 1."""
        self._weights = weights
        for lane in self._classes.values():
            for tenant in lane.tenants.values():
                weight = weights.get(tenant.name, 1.0)
                if tenant.waiting:
                    lane.busy_weight += weight - tenant.weight
                tenant.weight = weight

    def put(self, task: str, tenant: str, priority_class: PriorityClass, cost: float, *, first: bool = False) -> None:
        """Let a task wait, at the end of its tenant's queue, or `first` if it already had its turn."""
        lane = self._classes[priority_class]
        of = lane.tenant(tenant, self._weights.get(tenant, 1.0))
        if not lane.waiting:
            lane.turn = max(lane.turn, self._now)
        if not of.waiting:
            of.turn = max(of.turn, lane.now)
            lane.busy_weight += of.weight
        if first and of.waiting:
            head = next(iter(of.waiting.values()))
            entry = _Waiting(lane, of, cost, head.ticket - 1, head.before - cost)
        else:
            entry = _Waiting(lane, of, cost, of.tail_ticket, of.tail_cost)
            of.tail_ticket += 1
            of.tail_cost += cost
        self._waiting[task] = of.waiting[task] = entry
        if first:
            of.waiting.move_to_end(task, last=False)
        lane.waiting += 1
        lane.waiting_cost += cost
        lane.place(of)

    def take(self) -> str | None:
        """The task whose turn it is, charged its estimate; None when nothing waits."""
        if self._critical.waiting:
            lane = self._critical
        else:
            busy = None
            for shared in self._shared:
                if shared.waiting and (busy is None or shared.turn < busy.turn):
                    busy = shared
            if busy is None:
                return None
            lane = busy
            self._now = max(self._now, lane.turn)
        tenant = lane.next_tenant()
        task = next(iter(tenant.waiting))
        entry = self._leave(task)
        lane.now = max(lane.now, tenant.turn)
        charge = self._charges[task] = _Charge(lane, tenant, 0.0)
        tenant.running += 1
        lane.running += 1
        self._charge(charge, entry.cost)
        if tenant.waiting:
            lane.place(tenant)
        return task

    def adopt(self, task: str, tenant: str, priority_class: PriorityClass, cost: float) -> None:
        """Charge for a task that runs although nobody took it here: an earlier owner of the pool did."""
        if task in self._charges:
            return
        lane = self._classes[priority_class]
        of = lane.tenant(tenant, self._weights.get(tenant, 1.0))
        of.running += 1
        lane.running += 1
        charge = self._charges[task] = _Charge(lane, of, 0.0)
        self._charge(charge, cost)

    def correct(self, task: str, cost: float) -> None:
        """Charge a running task what it has cost so far, if that is more than it was charged."""
        charge = self._charges.get(task)
        if charge and cost > charge.cost:
            self._charge(charge, cost)

    def settle(self, task: str, cost: float) -> None:
        """The task ended at this cost, or goes back at cost 0: a second run is not its tenant's fault."""
        if charge := self._charges.pop(task, None):
            self._charge(charge, cost)
            lane, tenant = charge.lane, charge.tenant
            tenant.running -= 1
            lane.running -= 1
            if not lane.waiting and not lane.running:  # the end of a busy period: nobody owes any more
                lane.now = max(lane.now, tenant.turn)

    def remove(self, task: str) -> bool:
        """Take a waiting task out without its turn. False if it does not wait."""
        if task not in self._waiting:
            return False
        self._leave(task)
        return True

    def position(self, task: str) -> int:
        """1 = next of its tenant. Never less than the truth, and more only while tasks before it were cancelled."""
        entry = self._waiting[task]
        return entry.ticket - next(iter(entry.tenant.waiting.values())).ticket + 1

    def cost_ahead(self, task: str) -> float:
        """Cost that the task's class is served before the task's turn, if nobody else comes."""
        entry = self._waiting[task]
        tenant, lane = entry.tenant, entry.lane
        head = next(iter(tenant.waiting.values()))
        until = tenant.turn - lane.now + (entry.before - head.before) / tenant.weight
        return max(until, 0.0) * lane.busy_weight

    def share(self, priority_class: PriorityClass) -> float:
        """The class's share of what the pool serves while all that now waits keeps waiting."""
        lane = self._classes[priority_class]
        if lane is self._critical:
            return 1.0
        return lane.weight / sum(c.weight for c in self._shared if c.waiting or c is lane)

    def waiting(self, priority_class: PriorityClass) -> tuple[int, float]:
        """Tasks of the class that wait, and their cost."""
        lane = self._classes[priority_class]
        return lane.waiting, lane.waiting_cost

    def heavy(self, at_most: int) -> list[str]:
        """Tenants that have at least the mean waiting, for their weight, the heaviest first. Critical work does not count.

        >>> queue = FairQueue()
        >>> for task, tenant in (("1", "ada"), ("2", "ada"), ("3", "bob")):
        ...     queue.put(task, tenant, PriorityClass.PRIORITY_CLASS_STANDARD, 100.0)
        >>> queue.heavy(at_most=8)
        ['ada']
        """
        waiting: dict[str, float] = {}
        weights = 0.0
        for tenant in (t for lane in self._shared for t in lane.tenants.values() if t.waiting):
            head, tail = next(iter(tenant.waiting.values())), next(reversed(tenant.waiting.values()))
            if tenant.name not in waiting:
                weights += tenant.weight
            waiting[tenant.name] = (
                waiting.get(tenant.name, 0.0) + (tail.before + tail.cost - head.before) / tenant.weight
            )
        mean = sum(cost * self._weights.get(name, 1.0) for name, cost in waiting.items()) / weights if weights else 0.0
        above = [name for name, cost in waiting.items() if cost >= mean]
        return sorted(above, key=lambda name: -waiting[name])[:at_most]

    def _leave(self, task: str) -> _Waiting:
        entry = self._waiting.pop(task)
        lane, tenant = entry.lane, entry.tenant
        del tenant.waiting[task]
        lane.waiting -= 1
        lane.waiting_cost = lane.waiting_cost - entry.cost if lane.waiting else 0.0
        if not tenant.waiting:
            lane.busy_weight = lane.busy_weight - tenant.weight if lane.waiting else 0.0
        return entry

    @staticmethod
    def _charge(charge: _Charge, cost: float) -> None:
        more, charge.cost = cost - charge.cost, cost
        charge.tenant.turn += more / charge.tenant.weight
        charge.lane.turn += more / charge.lane.weight
        if more < 0 and charge.tenant.waiting:
            charge.lane.place(charge.tenant)
