"""The lease on a real API server: one acts, the others wait."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from millrace_operator import leadership
from millrace_operator.adapters.kube_cluster import KubeCluster
from millrace_operator.leadership import LEASE, Leadership
from millrace_operator.ports import ApiError
from tests.support.api_server import ApiServer
from tests.support.waiting import eventually


class Candidate:
    """One operator's leadership, running."""

    def __init__(self, kube: KubeCluster, name: str) -> None:
        self.leadership = Leadership(kube, "default", name)
        self.task = asyncio.create_task(self.leadership.run())

    @property
    def leading(self) -> bool:
        return self.leadership.leading

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def die(self) -> None:
        """As by kill -9: the lease is not given up."""
        self.leadership._renewed_at = float("-inf")
        await self.leave()


@pytest.fixture
async def kube(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeCluster]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    for name, value in (("DURATION_S", 6), ("DEADLINE_S", 4.5), ("RETRY_S", 0.1)):
        monkeypatch.setattr(leadership, name, value)
    cluster.kubectl("delete", "lease", LEASE, "--ignore-not-found")
    async with KubeCluster("default") as it:
        yield it


async def test_one_leads_and_hands_over_when_it_leaves(kube: KubeCluster) -> None:
    """The follower does not wait for the lease to run out."""
    first = Candidate(kube, "first")
    await eventually(lambda: first.leading)
    second = Candidate(kube, "second")
    await asyncio.sleep(0.5)
    assert first.leading
    assert not second.leading
    assert second.leadership.holder == "first"
    began = time.monotonic()
    await first.leave()
    await eventually(lambda: second.leading)
    assert time.monotonic() - began < 4
    await second.leave()


async def test_a_dead_leader_is_followed_once_its_lease_ran_out(kube: KubeCluster) -> None:
    """Not before: it might only be slow."""
    first = Candidate(kube, "first")
    await eventually(lambda: first.leading)
    second = Candidate(kube, "second")
    await asyncio.sleep(0.5)
    began = time.monotonic()
    await first.die()
    await eventually(lambda: second.leading, within_s=30)
    assert 4.0 < time.monotonic() - began < 15.0
    await second.leave()
    lease = await kube.get("Lease", ("default", LEASE))
    assert lease
    assert lease["spec"]["leaseTransitions"] == 1


async def test_a_leader_that_cannot_renew_stops_acting_before_another_one_starts(
    kube: KubeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server is away for it alone."""
    first = Candidate(kube, "first")
    await eventually(lambda: first.leading)

    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(KubeCluster("default"))

        async def away(*_: object) -> None:
            raise ApiError(0, "the API server is away")

        for verb in ("get", "replace"):
            monkeypatch.setattr(kube, verb, away)
        second = Candidate(other, "second")
        both = False
        async with asyncio.timeout(30):
            while not second.leading:
                both = both or (first.leading and second.leading)
                await asyncio.sleep(0.01)
        assert not both
        assert not first.leading
        await second.leave()
        await first.leave()
