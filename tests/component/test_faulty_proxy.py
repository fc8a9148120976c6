"""The proxy that breaks connections does to them what it says."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.faults import FaultyProxy


@pytest.fixture
async def proxy() -> AsyncIterator[FaultyProxy]:
    """A proxy to a server that sends everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass  # the proxy cut it
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, FaultyProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


@asynccontextmanager
async def connected(proxy: FaultyProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(proxy: FaultyProxy, text: bytes) -> bytes:
    async with connected(proxy) as (reader, writer):
        writer.write(text)
        return await asyncio.wait_for(reader.readexactly(len(text)), 5)


async def test_bytes_pass_unchanged(proxy):
    """Without a fault it is only a detour, also for more than one piece."""
    text = bytes(range(256)) * 2000
    assert await ask(proxy, text) == text


async def test_a_drip_loses_nothing(proxy):
    """One byte at a time, every byte arrives."""
    proxy.drip_bytes = 1
    assert await ask(proxy, b"0123456789") == b"0123456789"


async def test_a_delay_holds_up_both_directions(proxy):
    """Question and answer each take the delay."""
    proxy.delay_s = 0.05
    began = time.monotonic()
    await ask(proxy, b"x")
    assert time.monotonic() - began >= 0.1


async def test_a_cut_resets_open_connections_only(proxy):
    """Who is connected loses the connection, who comes next does not."""
    async with connected(proxy) as (reader, writer):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
    assert await ask(proxy, b"y") == b"y"


async def test_a_half_open_connection_says_nothing(proxy):
    """It stays, what is sent vanishes, and new bytes pass again when the fault is over."""
    async with connected(proxy) as (reader, writer):
        proxy.half_open = True
        writer.write(b"x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        proxy.half_open = False
        writer.write(b"y")
        assert await asyncio.wait_for(reader.read(1), 5) == b"y"


async def test_a_refusing_proxy_resets_new_connections(proxy):
    """As a port where a service is just gone."""
    proxy.refuse = True
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await ask(proxy, b"x")
