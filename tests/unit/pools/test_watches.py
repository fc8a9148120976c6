"""Which tasks a listener watches: said to the pool's owner once for all who ask here."""

import asyncio
from typing import cast

from millrace.dispatch.v1.dispatch_pb2 import SignalsRequest
from services.chassis.framed_client import Line
from services.pools.signals_listener import _Feed


class Owner:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[SignalsRequest] = []

    def send(self, message: bytes) -> None:
        self.told.append(SignalsRequest.FromString(message))

    async def heard(self) -> SignalsRequest:
        """What was told in the loop's next turn, in one message."""
        await asyncio.sleep(0)
        told, self.told = self.told, []
        heard = SignalsRequest()
        for request in told:
            heard.MergeFrom(request)
        return heard


def listened(owner: Owner) -> _Feed:
    feed = _Feed("main")
    feed.begin(cast("Line", owner), "gateway:1", 7)
    return feed


async def test_a_task_is_watched_until_the_last_who_asked_has_left() -> None:
    """A GET that forgets its task after ten seconds must not silence who reads it; each asks anew to hear at once."""
    owner = Owner()
    feed = listened(owner)
    for _ in range(2):
        feed.watch("t")
        assert list((await owner.heard()).watches) == ["t"]
    feed.unwatch("t")
    assert not (await owner.heard()).unwatches
    again = Owner()
    feed.begin(cast("Line", again), "gateway:1", 7)
    assert list((await again.heard()).watches) == ["t"]
    feed.unwatch("t")
    assert list((await again.heard()).unwatches) == ["t"]
    feed.begin(cast("Line", owner), "gateway:1", 7)
    assert not (await owner.heard()).watches


async def test_who_comes_as_another_leaves_is_heard() -> None:
    """The owner takes a message's watches before its unwatches: what holds at last is what it is told."""
    owner = Owner()
    feed = listened(owner)
    feed.watch("t")
    await owner.heard()
    feed.unwatch("t")
    feed.watch("t")
    heard = await owner.heard()
    assert (list(heard.watches), list(heard.unwatches)) == (["t"], [])


async def test_what_was_never_watched_may_be_unwatched() -> None:
    """A pool that went and came back knows nothing of earlier watches: one that is taken back then counts for nobody."""
    owner = Owner()
    feed = listened(owner)
    feed.unwatch("t")
    feed.watch("t")
    assert list((await owner.heard()).watches) == ["t"]
    feed.unwatch("t")
    assert list((await owner.heard()).unwatches) == ["t"]
