"""Feeds: one handle and one route for all readers of a task in this process.

A route in Redis is per gateway process, so two readers of one task share it. It is written before the log is read: the worker
logs, then reads the routes, so one of the two sees the other.
"""

import itertools
import logging

from millrace.task.v1.task_pb2 import Route
from services.gateway.ports import Signals
from services.gateway.reading.reader import Feed, Reader
from services.tasklog.ports import RedisAwayError, TokenLog

log = logging.getLogger(__name__)

ROUTE_S = 3600.0


class Feeds:
    """All feeds of this process. `address` and `boot` name its frames server in routes."""

    def __init__(self, token_log: TokenLog, signals: Signals, *, address: str, boot: int) -> None:
        self._log = token_log
        self._signals = signals
        self._address = address
        self._boot = boot
        self._handles = itertools.count(1)
        self.by_handle: dict[int, Feed] = {}
        self.by_task: dict[str, Feed] = {}

    def join(self, task: str, reader: Reader | None = None) -> Feed:
        """The task's feed, made if it is not there; the reader listens to it from now on."""
        feed = self.by_task.get(task)
        if feed is None:
            while (handle := next(self._handles) & 0xFFFFFFFF) == 0 or handle in self.by_handle:
                pass
            feed = self.by_task[task] = self.by_handle[handle] = Feed(task, handle)
        if reader is not None:
            feed.readers += (reader,)
        return feed

    def leave(self, feed: Feed, reader: Reader) -> bool:
        """The reader listens no more. Was it the last one, so that a written route has to go?"""
        feed.readers = tuple(r for r in feed.readers if r is not reader)
        if feed.readers:
            return False
        del self.by_task[feed.task], self.by_handle[feed.handle]
        if feed.watched:
            self._signals.unwatch(feed.watched, feed.task)
        return feed.attached

    def watch(self, feed: Feed, pool: str) -> None:
        """Ask the pool's owner for the place of a task whose record names another reader."""
        if pool and not feed.watched:
            feed.watched = pool
            self._signals.watch(pool, feed.task)

    def route(self, feed: Feed) -> Route:
        """What workers need to reach the feed."""
        return Route(address=self._address, boot=self._boot, handle=feed.handle)

    async def attach(self, feed: Feed) -> bool:
        """Write the route if it is wanted and not there. False: Redis is away, try again later."""
        if feed.wanted and not feed.attached and feed.readers:
            feed.attached = True  # before the wait: who attaches meanwhile reads after this write
            try:
                await self._log.attach(feed.task, self.route(feed), ROUTE_S)
            except RedisAwayError:
                feed.attached = False
                return False
        return True

    async def detach(self, feed: Feed) -> None:
        """Remove the route."""
        try:
            await self._log.detach(feed.task, self.route(feed))
        except RedisAwayError:
            log.debug("route of %s stays until it expires: Redis is away", feed.task)
