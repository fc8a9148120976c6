"""The fair queue against its promises: nothing is lost, and backlogged tenants are served alike."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from millrace.task.v1.task_pb2 import PRIORITY_CLASS_CRITICAL, PRIORITY_CLASS_STANDARD
from services.dispatcher.core.fair_queue import FairQueue
from services.pools.core.lanes import CLASSES

COSTS = st.floats(1, 1000)


class FairQueueMachine(RuleBasedStateMachine):
    """Any order of putting, taking, cancelling, ending and going back."""

    def __init__(self):
        super().__init__()
        self.queue = FairQueue({"anna": 2.0})
        self.waiting: dict[str, tuple[str, int]] = {}
        self.order: dict[tuple[str, int], list[str]] = {}
        self.running: dict[str, tuple[str, int]] = {}
        self.count = 0

    @rule(tenant=st.sampled_from(["anna", "bert", "cora"]), priority_class=st.sampled_from(CLASSES), cost=COSTS)
    def put(self, tenant, priority_class, cost):
        self.count += 1
        task = f"t{self.count}"
        self.queue.put(task, tenant, priority_class, cost)
        self.waiting[task] = (tenant, priority_class)
        self.order.setdefault((tenant, priority_class), []).append(task)

    @rule()
    def take(self):
        task = self.queue.take()
        assert (task is None) == (not self.waiting)
        if task is None:
            return
        tenant, priority_class = self.waiting.pop(task)
        assert self.order[tenant, priority_class].pop(0) == task, "order within a tenant"
        if any(c == PRIORITY_CLASS_CRITICAL for _, c in self.waiting.values()):
            assert priority_class == PRIORITY_CLASS_CRITICAL
        self.running[task] = (tenant, priority_class)

    @rule(data=st.data())
    def cancel(self, data):
        if self.waiting:
            task = data.draw(st.sampled_from(sorted(self.waiting)))
            self.order[self.waiting.pop(task)].remove(task)
            assert self.queue.remove(task)

    @rule(data=st.data(), cost=COSTS, ends=st.booleans())
    def go_on(self, data, cost, ends):
        if self.running:
            task = data.draw(st.sampled_from(sorted(self.running)))
            if ends:
                del self.running[task]
                self.queue.settle(task, cost)
            else:
                self.queue.correct(task, cost)

    @rule(data=st.data(), cost=COSTS)
    def go_back(self, data, cost):
        if self.running:
            task = data.draw(st.sampled_from(sorted(self.running)))
            place = self.running.pop(task)
            self.queue.settle(task, 0.0)
            self.queue.put(task, *place, cost, first=True)
            self.waiting[task] = place
            self.order[place].insert(0, task)

    @invariant()
    def nothing_is_lost_or_invented(self):
        assert len(self.queue) == len(self.waiting)
        for priority_class in CLASSES:
            count = sum(1 for _, c in self.waiting.values() if c == priority_class)
            waiting, cost = self.queue.waiting(priority_class)
            assert waiting == count
            assert cost >= -1e-6

    @invariant()
    def positions_are_never_less_than_the_truth(self):
        for order in self.order.values():
            for place, task in enumerate(order, 1):
                assert self.queue.position(task) >= place
                assert self.queue.cost_ahead(task) >= 0


TestFairQueue = FairQueueMachine.TestCase
TestFairQueue.settings = settings(max_examples=80, stateful_step_count=40)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.floats(1, 1000))
def test_backlogged_tenants_are_served_alike(seed, largest):
    """While tenants wait, what they were served differs by at most two of the costliest tasks, known or not beforehand."""
    rng, queue, actual = random.Random(seed), FairQueue(), {}
    for number in range(300):
        task, cost = f"{rng.choice('abcd')}{number}", rng.uniform(1, largest)
        queue.put(task, task[0], PRIORITY_CLASS_STANDARD, cost)
        actual[task] = cost * rng.uniform(0.2, 3)
    left = Counter(task[0] for task in actual)
    served: Counter[str] = Counter(dict.fromkeys(left, 0))
    bound = 2 * max(actual.values())
    while all(left.values()):
        assert max(served.values()) - min(served.values()) <= bound
        task = queue.take()
        left[task[0]] -= 1
        served[task[0]] += actual[task]
        queue.settle(task, actual[task])
