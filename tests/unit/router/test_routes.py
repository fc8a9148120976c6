"""Which pool: by weight, alike for every try, elsewhere only while it helps."""

import pytest

from millrace.config.v1.config_pb2 import ModelRoute, Pool, RouteTarget, Snapshot
from services.router.core.routes import Routes, choose, weighted

ROUTE = ModelRoute(
    model="m", targets=[RouteTarget(pool="old", weight=3), RouteTarget(pool="new", weight=1)], fallback="spare"
)


def test_shares_follow_the_weights():
    """A quarter of many tasks goes to the pool with a quarter of the weight."""
    chosen = [weighted(ROUTE, f"task-{n}") for n in range(20_000)]
    assert chosen.count("new") / len(chosen) == pytest.approx(0.25, abs=0.015)


def test_every_try_of_a_task_chooses_alike():
    """The id alone decides, on every replica."""
    assert {weighted(ROUTE, "task-7") for _ in range(100)} == {
        weighted(ModelRoute.FromString(ROUTE.SerializeToString()), "task-7")
    }


@pytest.mark.parametrize(
    ("workers", "pool"),
    [
        ({"old": 2, "spare": 1}, "old"),
        ({"old": 0, "spare": 1}, "spare"),
        ({"old": 0, "spare": 0}, "old"),
        ({"old": 0}, "old"),
        ({"spare": 1}, "old"),
    ],
)
def test_the_fallback_serves_while_the_chosen_pool_has_no_workers_and_it_has_some(workers, pool):
    """A pool nobody speaks for counts as served: the task waits in its lane."""
    task = next(t for t in map(str, range(100)) if weighted(ROUTE, t) == "old")
    assert choose(ROUTE, task, workers.get) == pool


def test_a_route_without_fallback_stays():
    """Its tasks wait for the workers that the operator starts."""
    route = ModelRoute(model="m", targets=[RouteTarget(pool="old", weight=1)])
    assert choose(route, "t", lambda _: 0) == "old"


def test_a_snapshot_is_indexed_by_model_and_pool():
    """The names that requests carry."""
    routes = Routes.of(Snapshot(routes=[ROUTE], pools=[Pool(name="old")]))
    assert (set(routes.routes), set(routes.pools)) == ({"m"}, {"old"})
