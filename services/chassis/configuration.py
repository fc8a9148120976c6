"""The published configuration: read at start, pushed on change, kept when its source is away."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Generic, Self, TypeVar

import hiredis

from services.chassis.clock import monotonic
from services.chassis.resp import RedisAwayError, Resp

log = logging.getLogger(__name__)

M = TypeVar("M")
SNAPSHOT_KEY = "cfg:snapshot"
SNAPSHOT_CHANNEL = "cfg"


class ConfigurationWatch(Generic[M]):
    """The snapshot at `cfg:snapshot`, kept current by its channel and, in case a push was lost, a look each 5 s.

    `current` is None until the first snapshot was seen. Subscribers are called with every new snapshot, on the loop.
    """

    def __init__(self, url: str, parse: Callable[[bytes], M], *, recheck_s: float = 5.0) -> None:
        self._due = asyncio.Event()
        self._redis = Resp(url)
        self._pushes = Resp(url, channel=SNAPSHOT_CHANNEL)
        self._pushes.on_message.append(lambda _: self._due.set())
        self._redis.on_connected.append(self._due.set)
        self._parse = parse
        self._recheck_s = recheck_s
        self._raw = b""
        self._seen_at = 0.0
        self._subscribers: list[Callable[[M], None]] = []
        self._stack = AsyncExitStack()
        self._first = asyncio.Event()
        self.current: M | None = None

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._pushes)
        await self._stack.enter_async_context(self._redis)
        watching = asyncio.create_task(self._watch(), name="configuration watch")
        self._stack.callback(watching.cancel)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def subscribe(self, callback: Callable[[M], None]) -> None:
        """Call back with the present snapshot, if any, and every later one."""
        self._subscribers.append(callback)
        if self.current is not None:
            callback(self.current)

    def age_s(self) -> float:
        """Seconds since the source was last seen to hold this snapshot; infinite before the first."""
        return monotonic() - self._seen_at if self.current is not None else float("inf")

    async def wait(self) -> M:
        """Wait for the first snapshot."""
        await self._first.wait()
        assert self.current is not None
        return self.current

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._recheck_s):
                    await self._due.wait()
            self._due.clear()
            try:
                self._look(await self._redis.call("GET", SNAPSHOT_KEY))
            except (RedisAwayError, hiredis.ReplyError) as reason:
                log.debug("configuration: %s; keeping the last snapshot", reason)

    def _look(self, raw: bytes | None) -> None:
        if raw is None:
            return
        self._seen_at = monotonic()
        if raw == self._raw:
            return
        try:
            snapshot = self._parse(raw)
        except Exception:
            log.exception("configuration: the published snapshot cannot be read; keeping the last one")
            return
        self._raw, self.current = raw, snapshot
        self._first.set()
        for subscriber in self._subscribers:
            subscriber(snapshot)
