"""The admin port: liveness, readiness, metrics. Never the public port."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.chassis.metrics import REGISTRY


@asynccontextmanager
async def admin_server(host: str, port: int, checks: Callable[[], Mapping[str, bool]]) -> AsyncIterator[int]:
    """Serve /healthz (the process lives), /readyz (each named check; 503 unless all hold) and /metrics. Yields the port."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        results = dict(checks())
        status = 200 if all(results.values()) else 503
        return web.Response(body=msgspec.json.encode(results), status=status, content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
