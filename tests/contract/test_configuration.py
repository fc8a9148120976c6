"""The published configuration on a real Redis: pushed on change, kept when its source is away."""

import asyncio

import pytest

from services.chassis.configuration import SNAPSHOT_CHANNEL, SNAPSHOT_KEY, ConfigurationWatch
from services.chassis.resp import Resp
from tests.support.waiting import eventually


async def publish(redis: Resp, content: str) -> None:
    await redis.pipe(("SET", SNAPSHOT_KEY, content), ("PUBLISH", SNAPSHOT_CHANNEL, "new"))


@pytest.fixture
async def redis(redis_url):
    async with Resp(redis_url) as connection:
        await connection.wait_connected(5)
        await connection.call("DEL", SNAPSHOT_KEY)
        yield connection
        await connection.call("DEL", SNAPSHOT_KEY)


async def seen(values, wanted):
    await eventually(lambda: wanted in values)


async def test_a_change_is_pushed_long_before_the_next_look(redis, redis_url):
    """Subscribers get the present snapshot at once and each new one as it is published."""
    values = []
    async with ConfigurationWatch(redis_url, bytes.decode, recheck_s=600) as watch:
        watch.subscribe(values.append)
        await eventually(lambda: watch._pushes.connected)
        await publish(redis, "first")
        assert await asyncio.wait_for(watch.wait(), 5) == "first"
        await publish(redis, "second")
        await seen(values, "second")
        late = []
        watch.subscribe(late.append)
        assert late == ["second"]


async def test_a_snapshot_that_cannot_be_read_changes_nothing(redis, redis_url):
    """The last good one is kept."""
    async with ConfigurationWatch(redis_url, int, recheck_s=0.05) as watch:
        await publish(redis, "1")
        assert await asyncio.wait_for(watch.wait(), 5) == 1
        await publish(redis, "nonsense")
        await publish(redis, "2")
        await eventually(lambda: watch.current == 2)


async def test_a_lost_push_is_made_good_by_the_next_look(redis, redis_url):
    """Whoever changed the key without publishing is found out."""
    async with ConfigurationWatch(redis_url, bytes.decode, recheck_s=0.05) as watch:
        await redis.call("SET", SNAPSHOT_KEY, "quiet")
        assert await asyncio.wait_for(watch.wait(), 5) == "quiet"
        assert watch.age_s() < 5
