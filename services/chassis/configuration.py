"""The published configuration: read at start, pushed on change, kept when its source is away."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

import redis.asyncio
from redis.exceptions import RedisError

from services.chassis.backoff import backoff
from services.chassis.clock import monotonic

log = logging.getLogger(__name__)

M = TypeVar("M")
SNAPSHOT_KEY = "cfg:snapshot"
SNAPSHOT_CHANNEL = "cfg"


class ConfigurationWatch(Generic[M]):
    """The snapshot at `cfg:snapshot`, kept current by its channel and, in case a push was lost, a look each 5 s.

    `current` is None until the first snapshot was seen. Subscribers are called with every new snapshot, on the loop.
    """

    def __init__(self, url: str, parse: Callable[[bytes], M], *, recheck_s: float = 5.0) -> None:
        self._redis = redis.asyncio.Redis.from_url(url, socket_timeout=5.0, socket_connect_timeout=2.0)
        self._parse = parse
        self._recheck_s = recheck_s
        self._raw = b""
        self._seen_at = 0.0
        self._subscribers: list[Callable[[M], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self.current: M | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(), name="configuration watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._redis.aclose()

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
        delays = backoff(0.1, 1.0)
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(SNAPSHOT_CHANNEL)
                    while True:
                        await self._look()
                        delays = backoff(0.1, 1.0)
                        with contextlib.suppress(TimeoutError):
                            await pubsub.get_message(ignore_subscribe_messages=True, timeout=self._recheck_s)
            except (RedisError, OSError) as reason:
                log.warning("configuration: %s; keeping the last snapshot", reason)
                await asyncio.sleep(next(delays))

    async def _look(self) -> None:
        raw = await self._redis.get(SNAPSHOT_KEY)
        if not isinstance(raw, bytes):
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
