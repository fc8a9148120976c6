"""What the watch tells of the cluster's schema, whatever becomes of the API server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from millrace_operator.adapters import watching
from millrace_operator.adapters.kube_cluster import WATCHED
from millrace_operator.core.definitions import digests
from millrace_operator.ports import ApiError
from millrace_operator.store import Store
from tests.support.waiting import eventually

OURS = digests()


class Server:
    """An API server that may be away."""

    def __init__(self):
        self.serves, self.away, self.asked = dict(OURS), False, 0
        self.meanwhile = lambda: None  # while the first list of Tenants is on its way
        self.lists, self.again = 0, asyncio.Event()  # of Tenants; is a second one answered?
        self.again.set()

    async def digests(self):
        self.asked += 1
        if self.away:
            raise ApiError(0, "the API server is away")
        return dict(self.serves)

    async def list(self, kind):
        if kind != "Tenant":
            return ()
        self.lists += 1
        if self.lists == 1:
            self.meanwhile()
        else:
            await self.again.wait()
        return [tenant("gone", 5), tenant("changed", 6)]


def tenant(name, version):
    return {"metadata": {"namespace": "default", "name": name, "resourceVersion": str(version)}}


def versions(store):
    return {key[1]: body["metadata"]["resourceVersion"] for key, body in store.all("Tenant").items()}


@asynccontextmanager
async def running(work) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(watching, "RELIST_S", 0.002)
    monkeypatch.setattr(watching, "WAIT_S", 0.002)
    return Server()


async def test_the_schema_is_known_before_the_first_object_is_seen(server):
    """The watch waits for all kinds to be served, so whoever acts on objects knows in which schema they are."""
    store = Store(WATCHED)
    assert store.digests is None
    del server.serves["Tenant"]
    async with running(watching._served(store, server)):
        await eventually(lambda: server.asked > 2)
        assert store.digests == server.serves
        server.serves["Tenant"] = "another"
        await eventually(lambda: store.digests == server.serves)


async def test_another_schema_is_seen_while_the_operator_runs_and_the_last_word_outlives_the_server(server):
    """Read again with every list; an API server that is away changes nothing of what is known."""
    store = Store(WATCHED)
    async with running(watching._relist(store, server)):
        await eventually(lambda: store.digests == OURS)
        server.serves["LimitPolicy"] = ""
        await eventually(lambda: store.digests == OURS | {"LimitPolicy": ""})
        server.away, asked = True, server.asked
        await eventually(lambda: server.asked > asked + 2)
        assert store.digests == OURS | {"LimitPolicy": ""}
        server.away = False
        server.serves = dict(OURS)
        await eventually(lambda: store.digests == OURS)


async def test_what_the_watch_tells_while_a_list_is_on_its_way_is_not_undone_by_it(server):
    """A tenant that somebody deleted does not come back, a new one does not vanish, and a change stays. The next one is believed."""
    store = Store(WATCHED)

    def meanwhile():
        store.drop("Tenant", tenant("gone", 7))
        store.put("Tenant", tenant("new", 8))
        store.put("Tenant", tenant("changed", 9))

    server.meanwhile = meanwhile
    server.again.clear()
    async with running(watching._relist(store, server)):
        await eventually(store.listed.is_set)
        assert versions(store) == {"new": "8", "changed": "9"}
        server.again.set()
        await eventually(lambda: versions(store) == {"gone": "5", "changed": "6"})
