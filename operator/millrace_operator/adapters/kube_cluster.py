"""The API server by lightkube, objects as plain JSON."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, cast
from uuid import uuid4

import httpx2
from lightkube import ApiError as LightkubeError
from lightkube import AsyncClient
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.types import PatchType

from millrace_operator.core.definitions import DIGEST, GROUP, VERSION
from millrace_operator.core.desired import POOL_LABEL
from millrace_operator.ports import MANAGER, SCALER, ApiError
from millrace_operator.store import Key, Object

TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Kind:
    """Where a kind is found. `watched`: by which label, "" for all of the namespace, None: not at all."""

    group: str
    version: str
    plural: str
    watched: str | None = None


KINDS: Final[Mapping[str, Kind]] = {
    "WorkerPool": Kind(GROUP, VERSION, "workerpools", ""),
    "ModelRoute": Kind(GROUP, VERSION, "modelroutes", ""),
    "Tenant": Kind(GROUP, VERSION, "tenants", ""),
    "LimitPolicy": Kind(GROUP, VERSION, "limitpolicies", ""),
    "Secret": Kind("", "v1", "secrets", ""),
    "Deployment": Kind("apps", "v1", "deployments", POOL_LABEL),
    "Pod": Kind("", "v1", "pods", POOL_LABEL),
    "ConfigMap": Kind("", "v1", "configmaps", POOL_LABEL),
    "Service": Kind("", "v1", "services"),
    "PodDisruptionBudget": Kind("policy", "v1", "poddisruptionbudgets"),
    "Lease": Kind("coordination.k8s.io", "v1", "leases"),
    "Event": Kind("events.k8s.io", "v1", "events"),
}
_RESOURCES: Final[Mapping[str, Any]] = {
    name: create_namespaced_resource(kind.group, kind.version, name, kind.plural) for name, kind in KINDS.items()
}
_DEFINITIONS: Final = create_global_resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"
)
WATCHED: Final = {name: kind for name, kind in KINDS.items() if kind.watched is not None}


class KubeCluster:
    """`Cluster` in one namespace. Use as an async context manager."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._client = AsyncClient(namespace=namespace, timeout=httpx2.Timeout(TIMEOUT_S), field_manager=MANAGER)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def list(self, kind: str) -> Sequence[Object]:
        """All objects of a kind that this operator watches."""
        label = KINDS[kind].watched
        labels = {label: None} if label else None  # None: whatever its value
        async with _asking():
            found = self._client.list(_RESOURCES[kind], labels=labels)  # type: ignore[arg-type]
            return [_plain(one) async for one in cast("AsyncIterator[Any]", found)]

    async def get(self, kind: str, key: Key) -> Object | None:
        """One object, read from the server."""
        return await self._absent_is_none(self._client.get(_RESOURCES[kind], key[1], namespace=key[0]))

    async def create(self, manifest: Object) -> Object:
        """Create. Raises ApiError, 409 when it is there already."""
        resource = _RESOURCES[manifest["kind"]]
        async with _asking():
            return _plain(await self._client.create(resource(manifest)))

    async def replace(self, manifest: Object) -> Object:
        """Write the whole object, if it is still at its resourceVersion; 409 if not."""
        resource = _RESOURCES[manifest["kind"]]
        async with _asking():
            return _plain(await self._client.replace(resource(manifest)))

    async def apply(self, manifest: Object, *, manager: str = MANAGER, force: bool = False) -> Object:
        """Server-side apply as one of our field managers. Without force a conflict with another one is a refusal (409)."""
        resource = _RESOURCES[manifest["kind"]]
        async with _asking():
            return _plain(await self._client.apply(resource(manifest), field_manager=manager, force=force))

    async def apply_status(self, kind: str, key: Key, status: Mapping[str, Any]) -> None:
        """The whole status of an object of ours; an object that went meanwhile is no error."""
        where = KINDS[kind]
        body = {
            "apiVersion": f"{where.group}/{where.version}",
            "kind": kind,
            "metadata": {"namespace": key[0], "name": key[1]},
            "status": dict(status),
        }
        resource = _RESOURCES[kind]
        await self._absent_is_none(
            self._client.apply(resource.Status(body), key[1], namespace=key[0], field_manager=MANAGER, force=True)
        )

    async def patch(self, kind: str, key: Key, patch: Object) -> None:
        """A JSON merge patch; an object that went meanwhile is no error."""
        await self._absent_is_none(
            self._client.patch(_RESOURCES[kind], key[1], dict(patch), namespace=key[0], patch_type=PatchType.MERGE)
        )

    async def scale(self, kind: str, key: Key, replicas: int) -> None:
        """Set the replicas by the scale subresource."""
        await self._absent_is_none(
            self._client.patch(
                _RESOURCES[kind].Scale,
                key[1],
                {"spec": {"replicas": replicas}},
                namespace=key[0],
                patch_type=PatchType.MERGE,
                field_manager=SCALER,
            )
        )

    async def event(self, about: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell people, where `kubectl describe` shows it."""
        metadata = about["metadata"]
        await self.create(
            {
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {
                    "namespace": metadata["namespace"],
                    "name": f"{metadata['name']}.{uuid4().hex[:16]}",
                },
                "eventTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
                "reportingController": "millrace.dev/operator",
                "reportingInstance": MANAGER,
                "action": reason,
                "reason": reason,
                "type": "Warning" if warning else "Normal",
                "note": message[:1024],
                "regarding": {
                    "apiVersion": about["apiVersion"],
                    "kind": about["kind"],
                    "namespace": metadata["namespace"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            }
        )

    async def digests(self) -> Mapping[str, str]:
        """The schema digests of our custom resource definitions, by kind; of one that is not served there is none."""

        def is_served(definition: Object) -> bool:
            conditions = definition.get("status", {}).get("conditions", ())
            return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

        found = {}
        for kind, where in KINDS.items():
            if where.group == GROUP:
                name = f"{where.plural}.{where.group}"
                served = await self._absent_is_none(self._client.get(_DEFINITIONS, name))
                if served and is_served(served):
                    found[kind] = served["metadata"].get("annotations", {}).get(DIGEST, "")
        return found

    async def _absent_is_none(self, asking: Awaitable[Any]) -> Object | None:
        try:
            async with _asking():
                answer = await asking
                return None if answer is None else _plain(answer)
        except ApiError as refused:
            if refused.status == 404:
                return None
            raise


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(2 * TIMEOUT_S):
            yield
    except LightkubeError as refused:
        raise ApiError(refused.status.code or 500, refused.status.message or str(refused)) from None
    except httpx2.HTTPStatusError as refused:  # by something that is no API server, or not one that speaks JSON yet
        raise ApiError(refused.response.status_code, str(refused)) from None
    except (httpx2.HTTPError, OSError, TimeoutError) as reason:
        raise ApiError(0, f"the API server is away: {reason or type(reason).__name__}") from None


def _plain(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.to_dict()
    return found
