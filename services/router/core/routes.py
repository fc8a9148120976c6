"""Which pool runs a task: by weight, the same for every try, the fallback while the chosen one has no workers."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from millrace.config.v1.config_pb2 import ModelRoute, Pool, Snapshot


@dataclass(frozen=True, slots=True)
class Routes:
    """A configuration snapshot, indexed by the names that are asked for."""

    routes: Mapping[str, ModelRoute]
    pools: Mapping[str, Pool]

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Routes":
        """Index a snapshot."""
        return cls({route.model: route for route in snapshot.routes}, {pool.name: pool for pool in snapshot.pools})


def weighted(route: ModelRoute, task: str) -> str:
    """The pool that the weights give this task: a function of its id alone, so that every try chooses alike.

    >>> from millrace.config.v1.config_pb2 import RouteTarget
    >>> route = ModelRoute(targets=[RouteTarget(pool="old", weight=9), RouteTarget(pool="new", weight=1)])
    >>> [weighted(route, f"task{i}") for i in range(1000)].count("new")
    105
    """
    targets = route.targets
    if len(targets) == 1:
        return targets[0].pool
    point = int.from_bytes(hashlib.blake2b(task.encode(), digest_size=8).digest()) % sum(t.weight for t in targets)
    for target in targets:
        point -= target.weight
        if point < 0:
            return target.pool
    raise AssertionError("the weights of a route are positive")


def choose(route: ModelRoute, task: str, workers: Callable[[str], int | None]) -> str:
    """The pool for this task. `workers` tells how many a pool has now, None = nobody says.

    The fallback serves only while it has workers itself; otherwise the task waits where it belongs, where it also is what
    makes the operator start a worker. A pool nobody speaks for counts as served: its dispatcher is changing.
    """
    pool = weighted(route, task)
    if route.fallback and workers(pool) == 0 and workers(route.fallback):
        return route.fallback
    return pool
