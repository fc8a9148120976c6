"""Who is calling, and what may they ask for? Compiled from a configuration snapshot; asked without any I/O."""

import hashlib
from dataclasses import dataclass

from millrace.config.v1.config_pb2 import ModelRoute, Pool, Snapshot, Tenant
from millrace.task.v1.task_pb2 import PriorityClass
from services.chassis.errors import ErrorCode, Problem
from services.gateway.core.submission import CLASS_NAMES, Submission, invalid

DEFAULT_CLASSES = frozenset(
    {
        PriorityClass.PRIORITY_CLASS_STANDARD,
        PriorityClass.PRIORITY_CLASS_BATCH,
        PriorityClass.PRIORITY_CLASS_BACKGROUND,
    }
)
RETENTION_S = 300.0


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated API key. `models` empty = all."""

    tenant: str
    api_key: str
    classes: frozenset[PriorityClass]
    models: frozenset[str]
    tenant_record: Tenant
    retention_s: float
    origins: frozenset[str]

    def may_use(self, model: str) -> bool:
        """May this tenant use the model?"""
        return not self.models or model in self.models


class Directory:
    """Keys, routes and pools of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.version = snapshot.version
        self.routes: dict[str, ModelRoute] = {r.model: r for r in snapshot.routes}
        self.pools: dict[str, Pool] = {p.name: p for p in snapshot.pools}
        self.origins = frozenset(o for t in snapshot.tenants for o in t.origins)
        self._callers: dict[bytes, Caller] = {}
        for tenant in snapshot.tenants:
            for key in tenant.keys:
                self._callers[key.sha256] = Caller(
                    tenant=tenant.name,
                    api_key=key.name,
                    classes=frozenset(tenant.classes) or DEFAULT_CLASSES,
                    models=frozenset(tenant.models),
                    tenant_record=tenant,
                    retention_s=tenant.retention.ToTimedelta().total_seconds() or RETENTION_S,
                    origins=frozenset(tenant.origins),
                )

    def caller_of(self, api_key: str) -> Caller | None:
        """Whose key is this? Looked up by its SHA-256, which is all that a snapshot holds."""
        return self._callers.get(hashlib.sha256(api_key.encode()).digest())

    def caller_named(self, tenant: str, api_key: str) -> Caller | None:
        """The caller that a ticket names, if the key still exists."""
        return next((c for c in self._callers.values() if c.tenant == tenant and c.api_key == api_key), None)

    def models_of(self, caller: Caller) -> list[str]:
        """Model names that the caller may use."""
        return sorted(m for m in self.routes if caller.may_use(m))

    def revision_of(self, model: str) -> str:
        """Names the revisions that may answer for a model: those of all pools its route reaches."""
        targets = {t.pool for t in self.routes[model].targets} | {self.routes[model].fallback}
        return ",".join(sorted(f"{p.name}={p.model_revision}" for n, p in self.pools.items() if n in targets))

    def admit(self, caller: Caller, submission: Submission) -> int | Problem:
        """May the caller ask this? The `max_tokens` that holds, or why not.

        A model that a tenant may not use is `forbidden`, one that nobody has is `unknown_model`.
        """
        if submission.priority_class not in caller.classes:
            name = CLASS_NAMES[submission.priority_class]
            return Problem(ErrorCode.FORBIDDEN, f"tenant {caller.tenant} may not use class {name}", "class")
        if not caller.may_use(submission.model):
            return Problem(ErrorCode.FORBIDDEN, f"tenant {caller.tenant} may not use {submission.model}", "model")
        route = self.routes.get(submission.model)
        if route is None:
            return Problem(ErrorCode.UNKNOWN_MODEL, f"no model {submission.model!r}; see GET /v1/models", "model")
        if route.max_tokens and submission.max_tokens > route.max_tokens:
            return invalid("max_tokens", f"at most {route.max_tokens} for {submission.model}")
        return submission.max_tokens or route.default_max_tokens or route.max_tokens or 256
