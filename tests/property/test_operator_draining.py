"""Draining against Kubernetes' own choice of pods: the pool gets where it should, and nobody with tasks is deleted in time."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_operator.core.draining import DRAINING_COST, FINISHED_COST, Leaver, steps

DEADLINE_S = 100.0


@dataclass
class Pod:
    name: str
    created: float
    ready: bool = False
    in_flight: int = 0
    since: float | None = None
    cost: float = 0.0


@dataclass
class Kube:
    """A Deployment and its pods; `killed` are tasks of pods that were deleted before their deadline."""

    replicas: int = 0
    pods: list[Pod] = field(default_factory=list)
    made: int = 0
    killed: int = 0

    def reconcile(self, now: float) -> None:
        while len(self.pods) < self.replicas:
            self.made += 1
            self.pods.append(Pod(f"p{self.made}", now))
        self.pods.sort(key=lambda p: (p.ready and p.since is None, p.cost, -p.created))
        for pod in self.pods[: max(len(self.pods) - self.replicas, 0)]:
            if pod.since is None or now - pod.since < DEADLINE_S:
                self.killed += pod.in_flight
        self.pods = self.pods[max(len(self.pods) - self.replicas, 0) :]

    def operate(self, wanted: int, now: float) -> None:
        seen = [
            Leaver(p.name, p.ready, p.created, p.in_flight, p.since, p.in_flight if p.since else None)
            for p in self.pods
        ]
        todo = steps(wanted, self.replicas, seen, DEADLINE_S, now)
        by_name = {pod.name: pod for pod in self.pods}
        for name in todo.take_back:
            by_name[name].since, by_name[name].cost = None, 0.0
        for name in todo.mark:
            by_name[name].since, by_name[name].cost = now, float(DRAINING_COST)
        for name in todo.finished:
            by_name[name].cost = float(FINISHED_COST)
        if todo.replicas is not None:
            self.replicas = todo.replicas


happenings = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.integers(0, 6)),
        st.tuples(st.just("kube"), st.just(0)),
        st.tuples(st.just("ready"), st.integers(0, 5)),
        st.tuples(st.just("end"), st.integers(0, 5)),
        st.tuples(st.just("begin"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(1, 60)),
    ),
    max_size=40,
)


@settings(max_examples=2000)
@given(happenings)
def test_a_pool_gets_to_its_number_and_kills_nothing_before_the_deadline(story):
    """Whatever number is wanted when, whoever is ready, busy or late: the operator takes a step after each happening."""
    kube, wanted, now = Kube(), 2, 1.0
    for what, number in story:
        now += 1.0
        pods = [pod for pod in sorted(kube.pods, key=lambda p: p.name) if pod.ready]
        some = pods[number % len(pods)] if pods else None
        match what:
            case "want":
                wanted = number
            case "kube":
                kube.reconcile(now)
            case "ready" if kube.pods:
                kube.pods[number % len(kube.pods)].ready = True
            case "end" if some:
                some.in_flight = 0
            case "begin" if some and some.since is None:
                some.in_flight += 1
            case "wait":
                now += number
        kube.operate(wanted, now)
        draining = sum(pod.since is not None for pod in kube.pods)
        going = max(len(kube.pods) - kube.replicas, 0)
        assert kube.replicas - max(draining - going, 0) == wanted  # workers that are not leaving, ordered or there
    for _ in range(12):
        now += 1.0
        kube.reconcile(now)
        for pod in kube.pods:
            pod.ready, pod.in_flight = True, 0
        kube.operate(wanted, now)
    kube.reconcile(now)
    assert kube.killed == 0
    assert (len(kube.pods), kube.replicas) == (wanted, wanted)
    assert not [pod for pod in kube.pods if pod.since is not None]
