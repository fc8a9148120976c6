"""Start in order, say when ready, leave politely: the same in all services.

    def main() -> None:
        run("router", RouterSettings, start)

    async def start(service: Service[RouterSettings]) -> None:
        redis = await service.enter("redis", Resp(service.settings.redis_url), ready=lambda: redis.connected)
        ...

A stop (SIGTERM, SIGINT, or a background task that died) makes the service not ready, runs the drain callbacks within
`drain_s`, then closes the resources in reverse order.
"""

import asyncio
import contextlib
import logging
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Generic, TypeVar

import uvloop

from services.chassis import collector
from services.chassis.admin import Drainable, admin_server
from services.chassis.background import call_off
from services.chassis.clock import monotonic
from services.chassis.loop_watch import LoopWatch
from services.chassis.metrics import loop_busy, loop_stalls
from services.chassis.settings import ServiceSettings, SettingsError, describe, load

log = logging.getLogger(__name__)

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")


class Service(Generic[S]):
    """One process of one service: its settings, resources, background tasks and how it ends."""

    def __init__(self, name: str, settings: S) -> None:
        self.name = name
        self.settings = settings
        self.boot = secrets.randbits(63) | 1  # tells this process from its predecessor at the same address
        self.draining = asyncio.Event()
        self.loop_watch = LoopWatch()
        self.failed = False
        self.drainable: Drainable | None = None  # by /drain of the admin port
        self._stop = asyncio.Event()
        self._stack = AsyncExitStack()
        self._checks: dict[str, Callable[[], bool]] = {}
        self._drains: list[Callable[[float], Awaitable[None]]] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def enter(
        self, name: str, resource: AbstractAsyncContextManager[T], ready: Callable[[], bool] | None = None
    ) -> T:
        """Open a resource; it is closed in reverse order. `ready` becomes a line of /readyz."""
        opened = await self._stack.enter_async_context(resource)
        if ready:
            self._checks[name] = ready
        return opened

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run in the background until the stop; if it raises, the service stops with exit code 1."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def on_drain(self, callback: Callable[[float], Awaitable[None]]) -> None:
        """Call at a stop with the seconds left, last registered first, before any resource closes."""
        self._drains.append(callback)

    def stop(self) -> None:
        """Begin to leave."""
        self._stop.set()

    def checks(self) -> dict[str, bool]:
        """What /readyz says."""
        return {"accepting": not self.draining.is_set()} | {name: check() for name, check in self._checks.items()}

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("%s died, the service stops", task.get_name(), exc_info=error)
            self.failed = True
            self._stop.set()

    async def serve(self, start: Callable[["Service[S]"], Awaitable[None]]) -> None:
        """Start, run until a stop, leave."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        settings = self.settings
        async with self._stack:
            await self.enter("loop", self.loop_watch)
            port = await self.enter(
                "admin", admin_server(settings.host, settings.admin_port, self.checks, lambda: self.drainable)
            )
            starting = asyncio.ensure_future(start(self))
            stopping = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                collector.settle()
                log.info("%s started, admin on %s:%d", self.name, settings.host, port)
                self.spawn("loop metrics", self._measure())
                await stopping
            else:
                await call_off([starting])
            await self._drain(settings.drain_s)
            await call_off(self._tasks)
            stopping.cancel()
        log.info("%s stopped", self.name)

    async def _drain(self, seconds: float) -> None:
        self.draining.set()
        ends = monotonic() + seconds
        for callback in reversed(self._drains):
            left = max(ends - monotonic(), 0.0)
            try:
                async with asyncio.timeout(left + 1.0):
                    await callback(left)
            except TimeoutError:
                log.warning("draining took longer than %.0f s and was cut", seconds)
            except Exception:
                log.exception("draining failed")

    async def _measure(self) -> None:
        seen = 0
        while True:
            await asyncio.sleep(1.0)
            loop_busy.set(self.loop_watch.busy)
            loop_stalls.inc(self.loop_watch.total_stalls - seen)
            seen = self.loop_watch.total_stalls


def run(name: str, settings_type: type[S], start: Callable[[Service[S]], Awaitable[None]]) -> None:
    """Be the service `name` until told to stop. Ends the process: 0 after a stop, 1 after a failure, 2 for wrong settings."""
    try:
        settings = load(settings_type, name)
    except SettingsError as wrong:
        print(f"{name}: {wrong}", file=sys.stderr)  # noqa: T201 - nothing else is up yet
        sys.exit(2)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    log.info("%s settings: %s", name, ", ".join(f"{n}={v}{u and ' ' + u}" for n, v, u, _ in describe(settings)))
    service: Service[S] | None = None

    async def serve() -> None:
        nonlocal service
        service = Service(name, settings)
        await service.serve(start)

    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(serve())
    except OSError as reason:
        log.error("%s cannot run: %s", name, reason)  # noqa: TRY400 - the sentence says it all
        sys.exit(1)
    sys.exit(1 if service is not None and service.failed else 0)
