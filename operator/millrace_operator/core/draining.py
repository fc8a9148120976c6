"""Who leaves a pool, step by step: marked, told to drain, finished, gone. A pure function of what is seen.

A pod that leaves carries the mark on itself (an annotation), so an operator that starts anew goes on where the last one was.
Kubernetes chooses which pod goes when the replicas fall: not ready before ready, then the lowest deletion cost. Draining pods
are not ready and cost less than nothing, finished ones still less. Should it choose another one nevertheless, that one has its
grace time, and a pod that drains is taken back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from millrace_operator.core.victims import Victim, choose, take_back

MARK: Final = "millrace.dev/draining-since"  # Unix s
COST: Final = "controller.kubernetes.io/pod-deletion-cost"
DRAINING_COST: Final = "-1000"
FINISHED_COST: Final = "-2000"


@dataclass(frozen=True, slots=True)
class Leaver:
    """A pod of the pool that is not being deleted. `since`: marked to leave; `in_flight`: None when it cannot be asked."""

    name: str
    ready: bool
    created: float
    running: int = 0  # tasks, for the choice; what is known
    since: float | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """What to do now, in this order. `replicas`: of the Deployment, None = as it is."""

    take_back: tuple[str, ...] = ()
    mark: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()  # may go: they have nothing left, or their time is up
    replicas: int | None = None


def steps(wanted: int, ordered: int, pods: Sequence[Leaver], deadline_s: float, now: float) -> Steps:
    """From `ordered` replicas of the Deployment, draining ones included, towards `wanted` that work.

    >>> idle, busy = Leaver("a", True, 1.0), Leaver("b", True, 2.0, running=3)
    >>> steps(1, 2, [idle, busy], 60.0, now=10.0).mark
    ('a',)
    >>> steps(1, 2, [Leaver("a", False, 1.0, since=5.0, in_flight=0), busy], 60.0, now=10.0)
    Steps(take_back=(), mark=(), finished=('a',), replicas=1)
    """
    going = max(len(pods) - ordered, 0)  # Kubernetes is about to delete so many, draining ones first
    draining = [pod for pod in pods if pod.since is not None]
    missing = wanted - _working(ordered, len(pods), len(draining))
    if missing > 0:
        back = take_back(_victims(pods), missing)
        replicas = ordered
        while _working(replicas, len(pods), len(draining) - len(back)) < wanted:
            replicas += 1
        return Steps(take_back=back, replicas=replicas if replicas != ordered else None)
    unmade = max(ordered - len(pods), 0)
    fewer = min(-missing, unmade)  # nothing is lost with a pod that does not exist yet
    mark = choose(_victims(pods), -missing - fewer)
    done = [pod.name for pod in draining if _finished(pod, deadline_s, now)]
    finished = tuple(sorted(done))
    leaving = max(len(finished) - going, 0)
    replicas = ordered - fewer - leaving
    return Steps(mark=mark, finished=finished if leaving else (), replicas=replicas if replicas != ordered else None)


def _working(ordered: int, pods: int, draining: int) -> int:
    """Of the ordered replicas those that stay: pods beyond the order are about to be deleted, draining ones first."""
    return ordered - max(draining - max(pods - ordered, 0), 0)


def _finished(pod: Leaver, deadline_s: float, now: float) -> bool:
    assert pod.since is not None
    return pod.in_flight == 0 or now - pod.since >= deadline_s


def _victims(pods: Sequence[Leaver]) -> list[Victim]:
    return [Victim(p.name, p.ready, p.since is not None, float(p.running), p.created) for p in pods]


def mark_of(pod: Mapping[str, str]) -> float | None:
    """Since when a pod with these annotations drains.

    >>> mark_of({MARK: "12.5"}), mark_of({MARK: "soon"}), mark_of({})
    (12.5, None, None)
    """
    try:
        return float(pod[MARK])
    except (KeyError, ValueError):
        return None
