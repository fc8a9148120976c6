"""An operator may end at any await: the next one goes on where it stopped, and the pool does not show it."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from millrace_operator.adapters.kube_cluster import WATCHED
from millrace_operator.core.desired import Installation
from millrace_operator.core.draining import MARK
from millrace_operator.pool_keeper import PoolKeeper, World
from millrace_operator.ports import ApiError
from millrace_operator.store import Store
from tests.support.memory_kube import MemoryKube

NOW = 1_764_072_000.0
KEY = ("default", "llama")
LEAST, MOST = 1, 9
POOL = {
    "apiVersion": "millrace.dev/v1alpha1",
    "metadata": {},
    "spec": {
        "model": {"name": "m"},
        "engine": {"kind": "Simulator"},
        "concurrency": {"slots": 4},
        "replicas": 1,
        "scaling": {"minReplicas": LEAST, "maxReplicas": MOST, "hold": {"mode": "Fixed", "seconds": 3}},
    },
}
# Tasks by second: they raise the pool, raise it again while it drains, and wait and run when it is deleted.
COME = {5: 14, 19: 20, 37: 30}
DELETED_S, GONE_S = 38, 120
PORTS = {"apply", "apply_status", "begin", "end", "event", "get", "look", "patch", "scale"}


@dataclass
class Life:
    """An operator's. It ends at its call number `last`: before the call takes effect or, `late`, before the answer comes."""

    last: int | None = None
    late: bool = False
    pause: int = 0  # s in which nobody acts after it
    lag: int = 0  # s by which it sees the cluster late
    faults: random.Random | None = None  # now and then a call has no answer; half of those took effect
    over_at: float | None = None


@dataclass
class Ports:
    """The world as one operator asks it."""

    kube: MemoryKube
    life: Life
    asked: Counter[str] = field(default_factory=Counter)
    step: "asyncio.Task[None] | None" = None

    def __getattr__(self, name):
        async def ask(*what, **how):
            life = self.life
            assert life.over_at is None, "an operator that has ended asks for something"
            self.asked[name] += 1
            ends = self.asked.total() == life.last
            if ends and not life.late:
                await self._end()
            fault = life.faults is not None and life.faults.random() < 0.03
            answer = None
            if not fault or life.faults.random() < 0.5:
                answer = await getattr(self.kube, name)(*what, **how)
            if ends:
                await self._end()
            if fault and name not in ("look", "begin", "end"):
                raise ApiError(0, "the API server is away")
            return None if fault else answer

        return ask

    async def _end(self):
        self.life.over_at = self.kube.now
        self.step.cancel()
        await asyncio.Event().wait()


class Operator:
    """A new one: it knows what the cluster tells it."""

    def __init__(self, kube, life):
        self.life, self.ports, self._kube, self._seen = life, Ports(kube, life), kube, 0
        self._store = Store(WATCHED)
        installed = Installation(worker_image="worker", engine_image="engine")
        self._keeper = PoolKeeper(World(self._store, self.ports, self.ports, kube, installed), KEY)

    async def step(self, past):
        """Look and act once; whether that was whole. `past`: the objects at each second, the newest last."""
        self._seen = max(self._seen, len(past) - self.life.lag) if self._seen else len(past)
        for kind, bodies in past[self._seen - 1].items():
            self._store.replace(kind, bodies)
        self.ports.step = asyncio.create_task(self._keeper.step(self._kube.now))
        (ended,) = await asyncio.gather(self.ports.step, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError) == (self.life.over_at is not None)
        if isinstance(ended, Exception) and not isinstance(ended, ApiError):
            raise ended
        return ended is None


class Story:
    """The pool from its making to its end, kept by one operator after the other; what must hold is looked at each second."""

    def __init__(self, lives: Iterable[Life] = ()):
        self._lives = iter(lives)
        self.kube = MemoryKube(NOW, slots=4, ready_s=3.0, come=lambda second: COME.get(second, 0))
        self.asked: Counter[str] = Counter()  # of the last operator

    async def run(self):
        """Until the pool is gone."""
        kube, past, operator, pause = self.kube, [], None, 0
        kube.put("WorkerPool", KEY, POOL)
        while kube.all("WorkerPool"):
            kube.tick()
            assert kube.now <= NOW + GONE_S, "the pool does not go"
            if kube.now == NOW + DELETED_S:
                kube.delete("WorkerPool", KEY)
            past.append({kind: kube.all(kind) for kind in WATCHED})
            if operator is None:
                pause -= 1
                if pause >= 0:
                    continue
                operator = Operator(kube, next(self._lives, Life()))
            whole = await operator.step(past)
            self.asked = operator.ports.asked
            self._look(whole=whole and not operator.life.faults and not operator.life.lag)
            if operator.life.over_at is not None:
                pause, operator = operator.life.pause, None
        kube.tick()
        kube.tick()
        assert not kube.killed, "tasks were killed"
        assert not kube.waiting, "tasks were left in the queue"
        assert not kube.undrained, "a marked worker went that nobody had told"
        assert not [key for kept in kube.objects.values() for key in kept], "something is left behind"
        return self

    def _look(self, *, whole):
        """`whole`: a step was just done to its end, by an operator that sees all and is answered."""
        kube = self.kube
        assert all(LEAST <= replicas <= MOST for _, replicas in kube.scaled["WorkerPool"])
        pods = kube.all("Pod")
        marked = [pod for pod in pods if MARK in pod["metadata"].get("annotations", {})]
        for deployment in kube.all("Deployment"):
            replicas = deployment["spec"]["replicas"]
            working = replicas - max(len(marked) - max(len(pods) - replicas, 0), 0)
            assert working <= MOST
            assert working >= LEAST or kube.now - NOW >= DELETED_S
            for pool in kube.all("WorkerPool") if whole else ():
                assert working == pool["spec"]["replicas"] or ("deletionTimestamp" in pool["metadata"] and working >= 0)
        if whole:
            assert all(kube.workers[pod["status"]["podIP"]].drains_until > kube.now for pod in marked)


async def test_the_story_asks_for_everything_that_can_be_asked():
    """Undisturbed: up, down with work running, up again out of a drain, and away."""
    story = await Story().run()
    assert story.asked.keys() == PORTS
    replicas = [replicas for _, replicas in story.kube.scaled["WorkerPool"]]
    assert LEAST < max(replicas) < MOST


@pytest.mark.parametrize("late", [False, True], ids=["before-it-takes-effect", "before-its-answer"])
async def test_an_operator_may_end_at_any_call(late):
    """The next one kills no task, forgets no mark and no object, orders nothing twice, and lets the pool go."""
    calls = (await Story().run()).asked.total()
    for last in range(1, calls + 1):
        life = Life(last=last, late=late)
        story = await Story([life]).run()
        assert life.over_at is not None
        for orders in story.kube.scaled.values():
            steps = [(at - life.over_at, after - before) for (_, before), (at, after) in pairwise([(NOW, 1), *orders])]
            assert all(step for _, step in steps), "an order was given again"
            raised = [step for at, step in steps if step > 0 and at in (0.0, 1.0)]
            assert len(raised) <= 1, "one decision was ordered by both operators"


@pytest.mark.parametrize("seed", range(100))
async def test_operators_that_end_again_and_again_harm_nothing(seed):
    """At calls drawn by the seed, leaving the pool alone for a while, seeing late, and with calls that have no answer."""
    rng = random.Random(seed)
    lives = [
        Life(
            last=rng.randint(1, 40), late=rng.random() < 0.5, pause=rng.choice((0, 0, 1, 6)), lag=rng.choice((0, 0, 1, 2)),
            faults=rng if rng.random() < 0.5 else None,
        )
        for _ in range(rng.randint(2, 8))
    ]  # fmt: skip
    await Story([*lives, Life(lag=rng.choice((0, 1, 2)))]).run()
