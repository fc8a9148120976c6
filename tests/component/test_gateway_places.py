"""Who asks where a task stands, and who listens, at one gateway and a real owner of the pool."""

import pytest

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from services.gateway.reading import places
from services.gateway.reading.feeds import Feeds
from services.gateway.reading.places import Places
from services.gateway.reading.reader import Reader
from services.gateway.reading.tasks import View
from services.pools.signals_listener import SignalsListener
from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.core.reading import Cursor
from tests.support.dispatch_room import POOL, Room
from tests.support.waiting import eventually


class Lookup:
    """Who owns the pool, from the memory of the room."""

    def __init__(self, room: Room) -> None:
        self.room = room

    async def find(self, pool: str):
        return self.room.leases.owner(pool)


def view(task: str, state: str) -> View:
    return View(task, state, "sim", POOL, "", 0, "", None)


async def test_a_question_that_is_forgotten_does_not_silence_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that came back follows a waiting task while another client asks for it once: it hears of every change."""
    monkeypatch.setattr(places, "PATIENCE_S", 10.0)
    heard: list[TaskStatus] = []
    async with Room() as room, SignalsListener(Lookup(room), "gateway:1", 7) as listener:
        asking = Places(listener, heard.append)
        listener.on_status = asking.on_status
        listener.follow([POOL])
        await room.dispatcher()
        await eventually(lambda: POOL in listener.signals)
        first, task = await room.submit(), await room.submit()
        feeds = Feeds(MemoryTokenLog(), listener, address="gateway:1", boot=7)
        feed = feeds.join(task.id)
        reader = Reader(feed, None, Cursor(), held=False)
        feeds.join(task.id, reader)
        feeds.watch(feed, POOL)
        assert (await asking.of(view(task.id, "queued"))).position == 2
        asking._asked[task.id].timer.cancel()
        asking._forget(task.id)  # as ten seconds later
        await room.log.wish_cancel(first.id, 60.0)
        listener.cancel(POOL, first.id)
        await eventually(lambda: heard[-1].position == 1)
        feeds.leave(feed, reader)
        assert not listener._feeds[POOL]._watched


async def test_a_task_that_does_not_wait_has_no_place() -> None:
    """And its pool's owner is not asked for it."""
    async with Room() as room, SignalsListener(Lookup(room)) as listener:
        listener.follow([POOL])
        where = await Places(listener, lambda _: None).of(view("t", "running"))
        assert (where.position, where.eta_s) == (None, None)
        assert not listener._feeds[POOL]._watched
