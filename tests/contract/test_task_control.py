"""Claim and state of tasks, in memory and on a real Redis."""

import asyncio
import uuid

import pytest

from millrace.task.v1.task_pb2 import Task
from services.chassis.resp import Resp
from services.tasklog.adapters.memory_task_control import MemoryTaskControl
from services.tasklog.adapters.redis_task_control import RedisTaskControl
from services.tasklog.core.control import Claim, Control
from services.tasklog.core.keys import control_key
from tests.support.waiting import eventually

KEEP_S = 60.0


@pytest.fixture(params=["memory", "redis"])
async def control(request):
    """A control that works."""
    if request.param == "memory":
        yield MemoryTaskControl()
        return
    async with Resp(request.getfixturevalue("redis_url")) as resp:
        await resp.wait_connected(5)
        yield RedisTaskControl(resp)


@pytest.fixture
def task():
    """A task nobody else has."""
    task = Task(id=uuid.uuid4().hex, tenant="acme", model="small", pool="tiny", body_hash=b"\x00\xff" * 16)
    task.submitted_at.FromMilliseconds(1_764_000_000_125)
    task.deadline.FromMilliseconds(1_764_000_600_125)
    return task


def other(task, **changes):
    copy = Task()
    copy.CopyFrom(task)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


async def test_the_first_claim_counts_one_and_later_ones_count_on(control, task):
    """The same key and body again: a retry, which attaches to what is there."""
    assert await control.claim(task, KEEP_S) == Claim(mine=True, tries=1, state="claimed", pool="tiny")
    assert await control.claim(task, KEEP_S) == Claim(mine=True, tries=2, state="claimed", pool="tiny")


async def test_a_claim_for_another_body_is_not_mine(control, task):
    """And changes nothing of the first."""
    await control.claim(task, KEEP_S)
    assert not (await control.claim(other(task, body_hash=b"other", model="large"), KEEP_S)).mine
    found = await control.get(task.id)
    assert found
    assert found.model == "small"


async def test_a_retry_learns_where_the_first_claim_sent_the_task(control, task):
    """Routes are weighted; two pools would run the task twice."""
    await control.claim(task, KEEP_S)
    assert (await control.claim(other(task, pool="large"), KEEP_S)).pool == "tiny"


async def test_of_claims_at_once_one_is_first(control, task):
    """Two gateways retry the same key at the same moment."""
    claims = await asyncio.gather(*(control.claim(task, KEEP_S) for _ in range(20)))
    assert sorted(claim.tries for claim in claims) == list(range(1, 21))


async def test_a_task_goes_from_claimed_to_accepted_to_ended(control, task):
    """Whoever asks sees where it stands and whose it is."""
    assert await control.get(task.id) is None
    await control.claim(task, KEEP_S)
    claimed = Control("acme", "small", "tiny", "claimed", 1_764_000_600.125, 1_764_000_000.125)
    assert await control.get(task.id) == claimed
    for write, state in ((control.accepted, "accepted"), (control.ended, "ended")):
        await write(task.id)
        found = await control.get(task.id)
        assert found
        assert found.state == state
        assert (await control.claim(task, KEEP_S)).state == state


async def test_an_end_is_never_taken_back(control, task):
    """`accepted` is not waited for; on a short task it may come after the end."""
    await control.claim(task, KEEP_S)
    await control.ended(task.id)
    await control.accepted(task.id)
    found = await control.get(task.id)
    assert found
    assert found.state == "ended"


async def test_an_end_is_kept_although_the_claim_was_lost(control, task):
    """So a late record of the task still does not run again."""
    await control.ended(task.id)
    assert await control.get(task.id) == Control("", "", "", "ended", 0.0, 0.0)
    assert await control.claim(task, KEEP_S) == Claim(mine=True, tries=1, state="ended", pool="tiny")


async def test_many_are_asked_for_at_once(control, task):
    """In order, None where nothing is known."""
    await control.claim(task, KEEP_S)
    nothing, found, again = await control.get_many([uuid.uuid4().hex, task.id, task.id])
    assert nothing is None
    assert found == again == await control.get(task.id)
    assert await control.get_many([]) == []


async def test_a_claim_lives_as_long_as_the_longest_wish_until_it_is_told_otherwise(control, task):
    """A retry with a short deadline does not shorten it; after the commit it expires."""
    await control.claim(task, KEEP_S)
    await control.claim(task, 0.01)
    await asyncio.sleep(0.03)
    assert await control.get(task.id)
    await control.expire(task.id, 0.02)

    async def forgotten():
        return not await control.get(task.id)

    await eventually(forgotten)
    assert (await control.claim(task, KEEP_S)).tries == 1


async def test_a_claim_has_an_end_from_the_start(redis_url, task):
    """A router that dies after the claim leaves nothing for ever."""
    async with Resp(redis_url) as resp:
        await resp.wait_connected(5)
        await RedisTaskControl(resp).claim(task, KEEP_S)
        assert 0 < await resp.call("TTL", control_key(task.id)) <= KEEP_S


async def test_memory_forgets_everything_on_request():
    """As Redis may."""
    control = MemoryTaskControl()
    await control.ended("t")
    control.forget()
    assert await control.get("t") is None
