"""Which pods drain, and which come back from it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Victim:
    """A pod as a candidate. `work_s`: what is left of the tasks that it runs; `created` in Unix s."""

    name: str
    ready: bool
    draining: bool
    work_s: float
    created: float
    terminating: bool = False  # deleted already: it can neither drain nor come back


def choose(pods: Iterable[Victim], count: int) -> tuple[str, ...]:
    """Names of up to `count` pods to drain: those not ready first, then the least work left, then the newest.

    A pod that drains already is never named again; equal pods go by their names, so the same pods give the same answer.

    >>> pods = [Victim("a", True, False, 9.0, 1.0), Victim("b", False, False, 0.0, 2.0), Victim("c", True, True, 0.0, 3.0)]
    >>> choose(pods, 2)
    ('b', 'a')
    """
    candidates = [pod for pod in pods if not pod.draining and not pod.terminating]
    candidates.sort(key=lambda pod: (pod.ready, pod.work_s, -pod.created, pod.name))
    return tuple(pod.name for pod in candidates[: max(count, 0)])


def take_back(pods: Iterable[Victim], count: int) -> tuple[str, ...]:
    """Names of up to `count` draining pods that come back: the ready ones first, then those that would be gone last.

    >>> take_back([Victim("a", True, True, 9.0, 1.0), Victim("b", True, True, 2.0, 2.0)], 1)
    ('a',)
    """
    candidates = [pod for pod in pods if pod.draining and not pod.terminating]
    candidates.sort(key=lambda pod: (not pod.ready, -pod.work_s, pod.created, pod.name))
    return tuple(pod.name for pod in candidates[: max(count, 0)])
