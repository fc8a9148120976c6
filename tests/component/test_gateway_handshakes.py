"""Before anybody is known: how many may knock, how long they may stay silent."""

import asyncio

import pytest

from services.gateway.http import server
from services.gateway.settings import GatewaySettings
from tests.support.gateway_lab import lab


async def test_an_address_may_knock_so_often_and_no_more() -> None:
    """Beyond the burst an address is refused with 429 before any upgrade; those who are in stay."""
    async with lab(GatewaySettings(handshakes_per_s=0.001, handshake_burst=2)) as it:
        first, _ = await it.socket(), await it.socket()
        upgrade = it.auth() | {"Connection": "Upgrade", "Upgrade": "websocket"}
        async with it.client.get(f"{it.http}/v1/ws", headers=upgrade) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (429, "limited")
        async with it.client.post(f"{it.http}/v1/tickets", headers=it.auth()) as response:
            assert (await response.json())["error"]["code"] == "limited"
        await first.send(t="ping")
        assert (await first.next())["t"] == "pong"


async def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects and asks nothing, or never ends its request's head, is cut off; a kept connection that asked is not."""
    monkeypatch.setattr(server, "AUTHENTICATE_S", 0.5)
    async with lab() as it:
        host, port = it.http.removeprefix("http://").split(":")
        silent, writer = await asyncio.open_connection(host, int(port))
        slow, slow_writer = await asyncio.open_connection(host, int(port))
        slow_writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n")
        kept, kept_writer = await asyncio.open_connection(host, int(port))
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        kept_writer.write(ask)
        await kept.readuntil(b"\r\n\r\n")
        assert await asyncio.wait_for(silent.read(), 2) == b""
        assert await asyncio.wait_for(slow.read(), 2) == b""
        kept_writer.write(ask)
        assert b"200 OK" in await asyncio.wait_for(kept.readuntil(b"200 OK"), 2)
        for one in (writer, slow_writer, kept_writer):
            one.close()
            await one.wait_closed()
