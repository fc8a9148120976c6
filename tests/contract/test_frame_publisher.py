"""Live frames to gateways: in memory, and over connections to frames servers on the loopback."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Protocol, Self

import pytest

from millrace.frames.v1.frames_pb2 import Frame, FrameBatch
from services.worker.adapters.framed_frame_publisher import QUEUE, FramedFramePublisher
from services.worker.adapters.memory_frame_publisher import MemoryFramePublisher
from services.worker.ports import FramePublisher
from tests.support.fake_frames import FakeFrames
from tests.support.waiting import eventually


def batch(n: int, text: str = "text") -> FrameBatch:
    """The n-th batch for one reader."""
    return FrameBatch(boot=1, frames=[Frame(handle=3, attempt=7, gen=7, start=n, end=n + 1, text=text)])


class Place(Protocol):
    """A publisher and two gateways, one of which a test can take away."""

    publisher: FramePublisher
    here: str
    there: str

    def got(self, address: str) -> list[FrameBatch]: ...

    async def leave(self, address: str) -> None: ...

    async def come(self, address: str) -> None: ...


class InMemory:
    """Addresses are names."""

    here, there = "here:8082", "there:8082"

    def __init__(self) -> None:
        self.publisher = MemoryFramePublisher()

    def got(self, address: str) -> list[FrameBatch]:
        return [sent for to, sent in self.publisher.sent if to == address]

    async def leave(self, address: str) -> None:
        self.publisher.away.add(address)

    async def come(self, address: str) -> None:
        self.publisher.away.discard(address)


class OverTheLoopback:
    """Addresses are ports of this machine; both gateways are there at first."""

    def __init__(self) -> None:
        self.publisher = FramedFramePublisher()
        self.gateways: dict[str, FakeFrames] = {}

    async def open(self) -> Self:
        for _ in range(2):
            gateway = FakeFrames()
            await gateway.come()
            self.gateways[gateway.address] = gateway
        self.here, self.there = self.gateways
        return self

    def got(self, address: str) -> list[FrameBatch]:
        return self.gateways[address].batches

    async def leave(self, address: str) -> None:
        await self.gateways[address].leave()

    async def come(self, address: str) -> None:
        await self.gateways[address].come()

    async def close(self) -> None:
        for gateway in self.gateways.values():
            await gateway.leave()


@pytest.fixture(params=["memory", "framed"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "memory":
        yield InMemory()
        return
    made = await OverTheLoopback().open()
    async with made.publisher:
        yield made
    await made.close()


async def test_batches_arrive_whole_and_in_order(place: Place) -> None:
    """A gateway gets what is pushed to it, and nothing else."""
    for n in range(50):
        place.publisher.push(place.here if n % 2 else place.there, batch(n))
    await eventually(lambda: len(place.got(place.here)) == len(place.got(place.there)) == 25)
    assert place.got(place.here) == [batch(n) for n in range(1, 50, 2)]
    assert place.got(place.there) == [batch(n) for n in range(0, 50, 2)]


async def test_a_dead_gateway_holds_up_nobody(place: Place) -> None:
    """Pushing to it returns at once, and the living one gets its frames."""
    await place.leave(place.there)
    began = time.monotonic()
    for n in range(1000):
        place.publisher.push(place.there, batch(n))
    place.publisher.push(place.here, batch(0))
    assert time.monotonic() - began < 1
    await eventually(lambda: place.got(place.here) == [batch(0)])
    assert not place.got(place.there)


async def test_a_gateway_that_comes_back_gets_frames_again(place: Place) -> None:
    """What was pushed meanwhile is lost; what is pushed once it is back arrives."""
    place.publisher.push(place.there, batch(0))
    await eventually(lambda: place.got(place.there))
    await place.leave(place.there)
    place.publisher.push(place.there, batch(1))
    await asyncio.sleep(0.1)
    await place.come(place.there)
    async with asyncio.timeout(10):
        while len(place.got(place.there)) < 2:
            place.publisher.push(place.there, batch(2))
            await asyncio.sleep(0.02)
    assert batch(2) in place.got(place.there)


async def test_a_gateway_that_stands_still_costs_bounded_memory() -> None:
    """What does not fit is dropped, the oldest is kept, and the worker goes on."""
    place = await OverTheLoopback().open()
    place.gateways[place.here].reads.clear()
    async with place.publisher:
        big = "x" * 50_000
        place.publisher.push(place.here, batch(0, big))
        await asyncio.sleep(0.1)
        for n in range(1, 3 * QUEUE):
            place.publisher.push(place.here, batch(n, big))
        await asyncio.sleep(0.1)
        place.gateways[place.here].reads.set()
        await eventually(lambda: len(place.got(place.here)) > 2)
        await asyncio.sleep(0.1)
        starts = [pushed.frames[0].start for pushed in place.got(place.here)]
        assert starts == list(range(len(starts)))
        assert len(starts) < 3 * QUEUE
    await place.close()


async def test_an_unused_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways come and go; their connections do not pile up."""
    monkeypatch.setattr("services.worker.adapters.framed_frame_publisher.IDLE_S", 0.1)
    place = await OverTheLoopback().open()
    await place.leave(place.there)
    async with place.publisher:
        place.publisher.push(place.here, batch(0))
        place.publisher.push(place.there, batch(0))
        await eventually(lambda: place.got(place.here))
        await eventually(lambda: not place.publisher._gateways)
        place.publisher.push(place.here, batch(1))
        await eventually(lambda: len(place.got(place.here)) == 2)
    await place.close()
