"""What the gateway keeps in Redis beside logs: tickets, and who is there. The same of the stand-ins for tests."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from millrace.task.v1.task_pb2 import Route
from services.chassis.resp import RedisAwayError, Resp
from services.gateway.adapters.memory_presence import MemoryPresence
from services.gateway.adapters.memory_ticket_store import MemoryTicketStore
from services.gateway.adapters.redis_presence import GATEWAYS_KEY, RedisPresence
from services.gateway.adapters.redis_ticket_store import RedisTicketStore
from services.gateway.ports import Presence, TicketStore
from services.tasklog.adapters.redis_token_log import RedisTokenLog


@pytest.fixture
async def resp(redis_url: str) -> AsyncIterator[Resp]:
    async with Resp(redis_url) as connection:
        await connection.wait_connected(5)
        yield connection


@pytest.fixture(params=["memory", "redis"])
def tickets(request: pytest.FixtureRequest) -> TicketStore:
    return MemoryTicketStore() if request.param == "memory" else RedisTicketStore(request.getfixturevalue("resp"))


@pytest.fixture(params=["memory", "redis"])
def presence(request: pytest.FixtureRequest) -> Presence:
    return MemoryPresence() if request.param == "memory" else RedisPresence(request.getfixturevalue("resp"), 1)


async def test_a_ticket_is_taken_once(tickets: TicketStore) -> None:
    """Whoever takes a ticket gets its owner; the next one gets nothing, nor who takes what never was."""
    digest = secrets.token_bytes(32)
    assert await tickets.take(digest) is None
    await tickets.put(digest, b"owner", 30)
    taken = await asyncio.gather(*[tickets.take(digest) for _ in range(5)])
    assert sorted(taken, key=bool) == [None] * 4 + [b"owner"]


async def test_a_ticket_is_good_for_its_time(tickets: TicketStore) -> None:
    """After its time a ticket is unknown."""
    digest = secrets.token_bytes(32)
    await tickets.put(digest, b"owner", 0.02)
    await asyncio.sleep(0.05)
    assert await tickets.take(digest) is None


async def test_nobody_reads_a_task_that_nobody_attached_to(presence: Presence) -> None:
    """No route, no reader; one gateway that says it lives is one."""
    assert await presence.readers(secrets.token_hex(13)) == 0
    assert await presence.gateways() >= 1


async def test_gateways_and_readers_are_counted(resp: Resp) -> None:
    """Each living gateway counts once, one that fell silent no more; readers are counted by gateway."""
    await resp.call("DEL", GATEWAYS_KEY)
    one, two = RedisPresence(resp, 1), RedisPresence(resp, 2)
    assert [await one.gateways(), await two.gateways(), await one.gateways()] == [1, 2, 2]
    await resp.call("ZADD", GATEWAYS_KEY, 1.0, 2)
    assert await one.gateways() == 1
    task, log = secrets.token_hex(13), RedisTokenLog(resp)
    for boot in (1, 2):
        await log.attach(task, Route(address="a", boot=boot, handle=5), 30)
    await log.wish_cancel(task, 30)
    assert await one.readers(task) == 2


async def test_a_redis_that_is_full_counts_as_away(resp: Resp) -> None:
    """`noeviction` and no room: whoever needs to write is told that Redis is away, nothing crashes."""
    await resp.call("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(RedisAwayError):
            await RedisTicketStore(resp).put(b"d", b"owner", 5)
        assert await RedisPresence(resp, 9).gateways() >= 0
    finally:
        await resp.call("CONFIG", "SET", "maxmemory", "0")
