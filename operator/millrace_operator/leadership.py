"""One operator acts, the others stand by: a `coordination.k8s.io/Lease` (client-go's leader election, 15/10/2 s)."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from millrace_operator.ports import ApiError, Cluster
from millrace_operator.store import Object
from services.chassis.clock import monotonic

log = logging.getLogger(__name__)

LEASE: Final = "millrace-operator"
DURATION_S: Final = 15  # a silent leader is followed by another one after so long
DEADLINE_S: Final = 10.0  # a leader that could not renew for so long stops acting, before anybody follows it
RETRY_S: Final = 2.0


class Leadership:
    """`leading` while this process may act. `run` until cancelled; then the lease is given up, so that nobody waits."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster = cluster
        self._key = (namespace, LEASE)
        self._name = name
        self._renewed_at = float("-inf")
        self._seen: tuple[Any, float] = (None, 0.0)  # the lease as another one wrote it, and since when it stands so
        self._ours: Object | None = None  # the lease as we wrote it last; who knows it need not read it
        self._acting: list[asyncio.Task[Any]] = []
        self.holder = ""
        self.led = asyncio.Event()  # set at the first time

    @property
    def leading(self) -> bool:
        """May this process act now?"""
        return monotonic() - self._renewed_at < DEADLINE_S

    def acts(self, task: asyncio.Task[Any]) -> None:
        """It writes while this process leads: the lease is given up once it has ended."""
        self._acting.append(task)

    async def run(self) -> None:
        """Try to lead, and go on leading."""
        try:
            while True:
                was = self.leading
                try:
                    await self._try()
                except ApiError as reason:
                    if reason.status != 409:  # 409: another one was quicker
                        log.warning("the lease is not renewed: %s", reason)
                if self.leading != was:
                    log.info("%s leads", "this process" if self.leading else self.holder or "nobody")
                await asyncio.sleep(RETRY_S)
        finally:
            await asyncio.shield(self._leave())

    async def _try(self) -> None:
        lease, self._ours = self._ours or await self._cluster.get("Lease", self._key), None
        asked_at = monotonic()
        if lease is None:
            ours = await self._cluster.create(self._lease({}, 0))
        else:
            spec = lease["spec"]
            self.holder = spec.get("holderIdentity") or ""
            if self.holder not in ("", self._name) and not self._expired(spec):
                return
            transitions = spec.get("leaseTransitions", 0) + (self.holder != self._name)
            ours = await self._cluster.replace(self._lease(lease["metadata"], transitions, spec.get("acquireTime")))
        self._ours = ours
        self.holder, self._renewed_at = self._name, asked_at
        self.led.set()

    def _expired(self, spec: Mapping[str, Any]) -> bool:
        """By our own clock alone: since when does the lease stand as it does? The time in it is by its holder's."""
        stands = (spec.get("holderIdentity"), spec.get("renewTime"))
        if self._seen[0] != stands:
            self._seen = (stands, monotonic())
        duration_s: int = spec.get("leaseDurationSeconds", DURATION_S)
        return monotonic() - self._seen[1] > duration_s

    def _lease(self, metadata: Mapping[str, Any], transitions: int, acquired: str | None = None) -> dict[str, Any]:
        at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        namespace, name = self._key
        version = {"resourceVersion": metadata["resourceVersion"]} if metadata else {}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"namespace": namespace, "name": name, **version},
            "spec": {
                "holderIdentity": self._name,
                "leaseDurationSeconds": DURATION_S,
                "acquireTime": acquired if acquired and self.holder == self._name else at,
                "renewTime": at,
                "leaseTransitions": transitions,
            },
        }

    async def _leave(self) -> None:
        for task in self._acting:
            if not task.cancelling():  # a second time would cut its ending short
                task.cancel()
        await asyncio.gather(*self._acting, return_exceptions=True)
        if self.leading:
            self._renewed_at = float("-inf")
            await self._give_up()

    async def _give_up(self) -> None:
        try:
            lease = await self._cluster.get("Lease", self._key)
            if lease and lease["spec"].get("holderIdentity") == self._name:
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._cluster.replace({**lease, "spec": spec})
        except ApiError as reason:
            log.warning("the lease is not given up and runs out: %s", reason)
