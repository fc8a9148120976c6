"""The admin port: liveness, readiness, metrics, and for workers the drain. Never the public port."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Protocol

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.chassis.metrics import REGISTRY

DRAIN_S: Final = 60.0


class Drainable(Protocol):
    """What can be told to take nothing new, and to take work again, while it runs on."""

    @property
    def draining(self) -> bool:
        """Does it take nothing new?"""
        ...

    @property
    def in_flight(self) -> int:
        """What it has not finished, or not reported, yet."""
        ...

    def drain_for(self, seconds: float) -> None:
        """Take nothing new for so long; 0: take work again."""
        ...


@asynccontextmanager
async def admin_server(
    host: str, port: int, checks: Callable[[], Mapping[str, bool]], drainable: Callable[[], Drainable | None]
) -> AsyncIterator[int]:
    """Serve /healthz (the process lives), /readyz (each named check; 503 unless all hold) and /metrics. Yields the port.

    /drain: POST begins or prolongs by `DRAIN_S`, so that a drain whose operator is gone for good ends by itself; DELETE ends,
    GET only tells. All answer `{"draining": bool, "in_flight": int}`. 404 where nothing can be drained.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        results = dict(checks())
        status = 200 if all(results.values()) else 503
        return web.Response(body=msgspec.json.encode(results), status=status, content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def drain(request: web.Request) -> web.Response:
        what = drainable()
        if what is None:
            raise web.HTTPNotFound(text="nothing here can be drained\n")
        if request.method != "GET":
            what.drain_for(DRAIN_S if request.method == "POST" else 0.0)
        told = {"draining": what.draining, "in_flight": what.in_flight}
        return web.Response(body=msgspec.json.encode(told), content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    app.add_routes([web.get("/drain", drain, allow_head=False), web.post("/drain", drain), web.delete("/drain", drain)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
