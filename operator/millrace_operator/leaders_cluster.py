"""The API server as the leader writes to it. Whoever does not lead any more is refused here, in the middle of whatever it does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from millrace_operator.leadership import DEADLINE_S, DURATION_S
from millrace_operator.ports import MANAGER, ApiError, Cluster
from millrace_operator.store import Key, Object

WRITE_S: Final = DURATION_S - DEADLINE_S  # who leads when a write begins has so long until anybody else may


class LeadersCluster:
    """`Cluster` on another one. Reads go through; a write needs that `leading()`, and ends before its successor may begin."""

    def __init__(self, cluster: Cluster, leading: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._leading = leading

    async def list(self, kind: str) -> Sequence[Object]:
        """All objects of a kind that this operator watches."""
        return await self._cluster.list(kind)

    async def get(self, kind: str, key: Key) -> Object | None:
        """One object, read from the server."""
        return await self._cluster.get(kind, key)

    async def digests(self) -> Mapping[str, str]:
        """The schema digests of our custom resource definitions, by kind."""
        return await self._cluster.digests()

    async def create(self, manifest: Object) -> Object:
        """Create."""
        async with self._writing():
            return await self._cluster.create(manifest)

    async def replace(self, manifest: Object) -> Object:
        """Write the whole object, if it is still at its resourceVersion."""
        async with self._writing():
            return await self._cluster.replace(manifest)

    async def apply(self, manifest: Object, *, manager: str = MANAGER, force: bool = False) -> Object:
        """Server-side apply as one of our field managers."""
        async with self._writing():
            return await self._cluster.apply(manifest, manager=manager, force=force)

    async def apply_status(self, kind: str, key: Key, status: Object) -> None:
        """The whole status of an object of ours."""
        async with self._writing():
            await self._cluster.apply_status(kind, key, status)

    async def patch(self, kind: str, key: Key, patch: Object) -> None:
        """A JSON merge patch."""
        async with self._writing():
            await self._cluster.patch(kind, key, patch)

    async def scale(self, kind: str, key: Key, replicas: int) -> None:
        """Set the replicas by the scale subresource."""
        async with self._writing():
            await self._cluster.scale(kind, key, replicas)

    async def event(self, about: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell people, where `kubectl describe` shows it."""
        async with self._writing():
            await self._cluster.event(about, reason, message, warning=warning)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        if not self._leading():
            raise ApiError(0, "this operator does not lead any more")
        try:
            async with asyncio.timeout(WRITE_S):
                yield
        except TimeoutError:
            raise ApiError(0, f"the API server is away: no answer within {WRITE_S:g} s") from None
