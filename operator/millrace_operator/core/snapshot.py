"""Manifests -> the snapshot that all services read. One pure function; equal manifests give an equal version.

A set of manifests is good as a whole or not at all: one flaw anywhere and nothing of it is published, so that services
never see a route without its pool.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration

from millrace.config.v1 import config_pb2 as config
from millrace.task.v1 import task_pb2 as task
from millrace_operator.core import schema as m
from millrace_operator.core.manifests import Flaw, Manifest, key_hash, read, subject_of

R = TypeVar("R")

_CLASSES: dict[m.ClassName, task.PriorityClass] = {
    "critical": task.PRIORITY_CLASS_CRITICAL,
    "standard": task.PRIORITY_CLASS_STANDARD,
    "batch": task.PRIORITY_CLASS_BATCH,
    "background": task.PRIORITY_CLASS_BACKGROUND,
}


def compile_snapshot(manifests: Sequence[Manifest], leaving: Collection[str] = ()) -> config.Snapshot | list[Flaw]:
    """The snapshot with its version but without `compiled_at`, or every flaw found.

    Of each document the first wrong field is named; rules between documents are checked once all have the right shape.
    `leaving`: pools that work off what they have and get nothing more: no route leads there, and one with no other pool is none.

    >>> compile_snapshot([Manifest("a.yaml", 1, {"kind": "WorkerPol"})])[0].path
    'kind'
    """
    readings = [(manifest, read(manifest)) for manifest in manifests]
    flaws = [found for _, found in readings if isinstance(found, Flaw)]
    if flaws:
        return flaws
    book = _Book([(manifest, found) for manifest, found in readings if not isinstance(found, Flaw)])
    flaws = list(book.flaws())
    if flaws:
        return flaws
    snapshot = config.Snapshot(
        pools=[_pool(pool) for pool in book.sorted(m.WorkerPool)],
        routes=[found for route in book.sorted(m.ModelRoute) if (found := _route(route, leaving))],
        tenants=[_tenant(tenant, book) for tenant in book.sorted(m.Tenant)],
    )
    snapshot.version = hashlib.sha256(snapshot.SerializeToString(deterministic=True)).hexdigest()[:16]
    return snapshot


class _Book:
    """All resources of one set by kind and name, and the rules between them."""

    def __init__(self, resources: Sequence[tuple[Manifest, m.Resource]]) -> None:
        self._resources = resources
        self.models = {resource.model for _, resource in resources if isinstance(resource, m.ModelRoute)}
        self.by_name: dict[tuple[type[Any], str], m.Resource] = {
            (type(resource), resource.metadata.name): resource for _, resource in resources
        }

    def sorted(self, kind: type[R]) -> list[R]:
        """Resources of a kind by name: the order of files and documents means nothing."""
        return [found for (_, _), found in sorted(self.by_name.items(), key=_by_name) if isinstance(found, kind)]

    def find(self, kind: type[R], name: str) -> R | None:
        """The resource of that kind and name."""
        found = self.by_name.get((kind, name))
        return found if isinstance(found, kind) else None

    def flaws(self) -> Iterator[Flaw]:
        """Everything that is wrong between documents that are right by themselves."""
        names: set[tuple[type, str]] = set()
        models: dict[str, str] = {}
        hashes: dict[bytes, str] = {}
        for manifest, resource in self._resources:
            wrong: list[tuple[str, str]] = []
            identity = (type(resource), resource.metadata.name)
            if identity in names:
                wrong.append(("metadata.name", "is taken by another manifest of this kind"))
            names.add(identity)
            match resource:
                case m.ModelRoute():
                    wrong += self._route_flaws(resource)
                    if models.setdefault(resource.model, resource.metadata.name) != resource.metadata.name:
                        wrong.append(("spec.model", f"`{resource.model}` has a route: {models[resource.model]}"))
                case m.Tenant():
                    wrong += self._tenant_flaws(resource)
                    for index, key in enumerate(resource.spec.keys):
                        digest = self.digest(key)
                        owner = f"{resource.metadata.name}/{key.name}"
                        if digest and hashes.setdefault(digest, owner) != owner:
                            wrong.append((f"spec.keys[{index}]", f"is the same key as {hashes[digest]}"))
                case m.WorkerPool() | m.LimitPolicy() | m.Secret():
                    pass
            for path, rule in wrong:
                yield Flaw(manifest.file, manifest.position, subject_of(manifest.document), path, rule)

    def digest(self, key: m.Key) -> bytes | None:
        """Hash of a tenant's key, wherever it is written; None if it cannot be found."""
        if key.secret_ref is None:
            return key_hash(key.sha256 or "")
        secret = self.find(m.Secret, key.secret_ref.name)
        entries = secret.entries() if secret else {}
        if key.secret_ref.key is None and len(entries) == 1:
            return key_hash(next(iter(entries.values())))
        return key_hash(entries.get(key.secret_ref.key or "", ""))

    def _route_flaws(self, route: m.ModelRoute) -> Iterator[tuple[str, str]]:
        spec = route.spec
        pools = [target.pool for target in spec.targets]
        if len(set(pools)) < len(pools):
            yield "spec.targets", "names a pool twice"
        for index, name in enumerate(pools):
            pool = self.find(m.WorkerPool, name)
            if pool is None:
                yield f"spec.targets[{index}].pool", f"there is no WorkerPool `{name}`"
            elif spec.tokens.max >= pool.spec.model.context_tokens:
                yield "spec.tokens.max", f"leaves no room for a prompt in WorkerPool `{name}`"
        if spec.fallback is not None and self.find(m.WorkerPool, spec.fallback) is None:
            yield "spec.fallback", f"there is no WorkerPool `{spec.fallback}`"
        if pools == [spec.fallback]:
            yield "spec.fallback", "is the only target"
        if spec.tokens.default > spec.tokens.max:
            yield "spec.tokens.default", "is above spec.tokens.max"

    def _tenant_flaws(self, tenant: m.Tenant) -> Iterator[tuple[str, str]]:
        spec = tenant.spec
        names = [key.name for key in spec.keys]
        if len(set(names)) < len(names):
            yield "spec.keys", "names a key twice"
        for index, key in enumerate(spec.keys):
            if (key.secret_ref is None) == (key.sha256 is None):
                yield f"spec.keys[{index}]", "needs either secretRef or sha256"
            elif key.secret_ref and self.find(m.Secret, key.secret_ref.name) is None:
                yield f"spec.keys[{index}].secretRef.name", f"there is no Secret `{key.secret_ref.name}`"
            elif self.digest(key) is None:
                yield f"spec.keys[{index}].secretRef", "names no entry that is an API key or its SHA-256"
        for index, model in enumerate(spec.models):
            if model not in self.models:
                yield f"spec.models[{index}]", f"there is no ModelRoute for `{model}`"
        if spec.limit_policy is not None and self.find(m.LimitPolicy, spec.limit_policy) is None:
            yield "spec.limitPolicy", f"there is no LimitPolicy `{spec.limit_policy}`"


def _by_name(item: tuple[tuple[type[Any], str], object]) -> str:
    return item[0][1]


def _seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration


def _pool(pool: m.WorkerPool) -> config.Pool:
    spec = pool.spec
    return config.Pool(
        name=pool.metadata.name,
        model=spec.model.name,
        model_revision=spec.model.revision,
        assets=spec.model.assets,
        slots=spec.concurrency.slots,
        max_queue_s=spec.queue.max_seconds,
        max_attempts=spec.poison.max_attempts,
        context_tokens=spec.model.context_tokens,
    )


def _route(route: m.ModelRoute, leaving: Collection[str]) -> config.ModelRoute | None:
    spec = route.spec
    fallback = spec.fallback if spec.fallback and spec.fallback not in leaving else ""
    targets = [config.RouteTarget(pool=to.pool, weight=to.weight) for to in spec.targets if to.pool not in leaving]
    if not targets and not fallback:
        return None
    return config.ModelRoute(
        model=route.model,
        targets=targets or [config.RouteTarget(pool=fallback, weight=1)],
        fallback=fallback if targets else "",
        default_max_tokens=route.spec.tokens.default,
        max_tokens=route.spec.tokens.max,
    )


def _tenant(tenant: m.Tenant, book: _Book) -> config.Tenant:
    spec = tenant.spec
    policy = book.find(m.LimitPolicy, spec.limit_policy) if spec.limit_policy else None
    return config.Tenant(
        name=tenant.metadata.name,
        keys=[config.ApiKey(name=key.name, sha256=book.digest(key) or b"") for key in spec.keys],
        models=spec.models,
        classes=[_CLASSES[name] for name in spec.classes],
        weight=spec.weight,
        limits=_limits(policy.spec) if policy else None,
        retention=_seconds(spec.retention_seconds),
        origins=spec.origins,
    )


def _limits(policy: m.LimitPolicySpec) -> config.Limits:
    return config.Limits(
        key_requests=_limit(policy.per_key.requests),
        key_tokens=_limit(policy.per_key.tokens),
        tenant_requests=_limit(policy.per_tenant.requests),
        tenant_tokens=_limit(policy.per_tenant.tokens),
    )


def _limit(limit: m.Limit | None) -> config.Limit | None:
    if limit is None:
        return None
    burst = max(1.0, limit.rate) if limit.burst is None else limit.burst
    return config.Limit(rate=limit.rate, period=_seconds(limit.period_seconds), burst=burst)
