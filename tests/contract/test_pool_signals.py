"""PoolSignals: what a pool's dispatcher said last, for as long as it speaks."""

import asyncio

import pytest

from millrace.dispatch.v1.dispatch_pb2 import PoolSignal, SignalsUpdate
from services.chassis.framed_server import framed_server
from services.pools.core.ownership import Owner
from services.pools.signals_listener import SIGNALS, SignalsListener
from services.router.adapters import dispatcher_pool_signals
from services.router.adapters.dispatcher_pool_signals import DispatcherPoolSignals
from services.router.adapters.memory_pool_signals import MemoryPoolSignals
from tests.support.waiting import eventually

SIGNAL = PoolSignal(pool="main", workers=2, wait_s=1.5)


class Dispatcher:
    """Says one thing about the pool and is silent from then on."""

    def __init__(self, connection):
        self._connection = connection

    def take(self, message):
        self._connection.send(b"")
        self._connection.send(SignalsUpdate(epoch=1, signal=SIGNAL).SerializeToString())

    def lost(self):
        pass

    async def leave(self):
        pass


class Lookup:
    """Every pool has the same owner."""

    def __init__(self, port):
        self._owner = Owner(f"127.0.0.1:{port}", 1)

    async def find(self, pool):
        return self._owner if pool == "main" else None


@pytest.fixture(params=["memory", "dispatcher"])
async def signals(request):
    if request.param == "memory":
        yield MemoryPoolSignals(main=SIGNAL)
        return
    async with (
        framed_server("127.0.0.1", 0, {SIGNALS: Dispatcher}, grace_s=0) as server,
        SignalsListener(Lookup(server.port)) as listener,
    ):
        listener.follow(["main", "other"])
        await eventually(lambda: "main" in listener.signals)
        yield DispatcherPoolSignals(listener)


async def test_the_last_signal_is_known(signals):
    """As the dispatcher sent it."""
    assert signals.latest("main") == SIGNAL


async def test_of_a_pool_nobody_speaks_for_nothing_is_known(signals):
    """Neither that it has work nor that it has none."""
    assert signals.latest("other") is None
    assert signals.latest("never heard of") is None


@pytest.mark.parametrize("signals", ["dispatcher"], indirect=True)
async def test_a_stale_signal_is_no_signal(signals, monkeypatch):
    """An owner that fell silent may be dead; nothing is shed on its last word."""
    monkeypatch.setattr(dispatcher_pool_signals, "STALE_S", 0.05)
    await asyncio.sleep(0.1)
    assert signals.latest("main") is None
