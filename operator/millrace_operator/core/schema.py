"""The schema of the manifests: every field with its default, its bounds and what it means.

Group `millrace.dev/v1alpha1`. A field that is not here is refused by name, so a typing error never passes as a default.
The offline compiler reads manifests with it, and `python -m millrace_operator.crds` writes the CRDs of the chart from it:
change a field or a rule here (a WorkerPool's in `worker_pool.py`), then generate.

API keys stand in ordinary Secrets (`v1`): an entry's value is the key itself (`mr_` and 32 base32 characters) or, for
those who keep it elsewhere, the 64 hexadecimal digits of its SHA-256. Specs never hold a key.
"""

import base64
import binascii
from typing import Annotated, ClassVar, Literal, TypeAlias

from msgspec import Meta, field

from millrace_operator.core.declare import (
    Column,
    Count,
    CustomResource,
    Generation,
    Metadata,
    ModelName,
    Name,
    ObjectName,
    Positive,
    Rule,
    Schema,
    Tokens,
    doc,
    keyed,
)
from millrace_operator.core.reasons import Condition
from millrace_operator.core.worker_pool import WorkerPool

__all__ = [
    "CUSTOM_RESOURCES",
    "KINDS",
    "ClassName",
    "Dimensions",
    "Key",
    "Limit",
    "LimitPolicy",
    "LimitPolicySpec",
    "ModelRoute",
    "Resource",
    "Secret",
    "Tenant",
    "WorkerPool",
]

ClassName = Literal["critical", "standard", "batch", "background"]
_AGE = Column("Age", ".metadata.creationTimestamp", "date", "Time since it was made.")
_READY = Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "string", "The condition Ready.")


class _Status(Schema, frozen=True, kw_only=True):
    """What the operator found. Nothing reads it as input."""

    observed_generation: Annotated[
        Generation, doc("The metadata.generation of the spec that this status is about.")
    ] = 0


# -- ModelRoute ---------------------------------------------------------------------------------------------------------


class Target(Schema, frozen=True, kw_only=True):
    """One share of a route."""

    pool: Annotated[Name, doc("WorkerPool in the same namespace that gets the share.")]
    weight: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        doc("The target's share is this divided by the sum of all weights. To send nothing, remove the target."),
    ] = 1


class TokenBounds(Schema, frozen=True, kw_only=True):
    """Completion tokens of one request."""

    rules: ClassVar = (Rule("self.default <= self.max", "default is above max: lower it or raise max", ".default"),)

    default: Annotated[Tokens, doc("Completion tokens that a request gets when its client names no number.")] = 256
    max: Annotated[
        Tokens,
        doc(
            "The most completion tokens that a client may ask for; more is refused. Less than the contextTokens of every"
            " target, or there would be no room for a prompt."
        ),
    ] = 1024


class ModelRouteSpec(Schema, frozen=True, kw_only=True):
    """Where requests for a model name go."""

    rules: ClassVar = (
        Rule(
            "!has(self.fallback) || self.targets.exists(t, t.pool != self.fallback)",
            "fallback is the only target: name another pool or leave it out",
            ".fallback",
        ),
    )

    model: Annotated[
        ModelName | None,
        doc("The name that clients use. Absent: the name of this object. No two routes have the same."),
    ] = None
    targets: Annotated[
        tuple[Target, ...],
        Meta(min_length=1, max_length=16),
        keyed("pool"),
        doc("The pools and their shares. A new revision of a model gets a small weight first. No pool twice."),
    ]
    fallback: Annotated[
        Name | None,
        doc("WorkerPool that takes the requests while it has workers and the chosen one has none. Absent: they wait."),
    ] = None
    tokens: Annotated[TokenBounds, doc("How many completion tokens one request may have.")] = TokenBounds()


class ModelRouteStatus(_Status, frozen=True, kw_only=True):
    """What the operator found. Nothing reads it as input."""

    model: Annotated[str, Meta(max_length=128), doc("The name that clients use.")] = ""
    targets: Annotated[
        str, Meta(max_length=2048), doc("Pools and shares in one line: llama-8b 90 %, llama-8b-canary 10 %.")
    ] = ""
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(max_length=16),
        keyed("type"),
        doc(
            "Accepted: the spec is right and all pools exist. Ready: it is in the snapshot that all services read and a"
            " target has workers."
        ),
    ] = ()


class ModelRoute(CustomResource, frozen=True, kw_only=True, tag="ModelRoute"):
    """Where requests for a model name go: to one pool, or to several in shares.

    A route makes a model visible to clients. Shares are for canaries; a fallback is for the time without workers.
    """

    plural: ClassVar = "modelroutes"
    short_name: ClassVar = "mr"
    columns: ClassVar = (
        Column("Model", ".status.model", "string", "The name that clients use."),
        Column("Targets", ".status.targets", "string", "Pools and shares."),
        _READY,
        _AGE,
    )

    api_version: Literal["millrace.dev/v1alpha1"]
    metadata: Metadata
    spec: Annotated[ModelRouteSpec, doc("Where the requests should go.")]
    status: Annotated[
        ModelRouteStatus | None, doc("What the operator found. A manifest that brings one along changes nothing.")
    ] = None

    @property
    def model(self) -> str:
        """The name clients use."""
        return self.spec.model or self.metadata.name


# -- LimitPolicy --------------------------------------------------------------------------------------------------------


class Limit(Schema, frozen=True, kw_only=True):
    """A bucket that fills at a steady rate and that requests take from."""

    rate: Annotated[Positive, doc("Units that the bucket gains in each period.")]
    period_seconds: Annotated[Positive, doc("Length of the period in seconds; the burst does not depend on it.")] = 60.0
    burst: Annotated[
        Annotated[float, Meta(ge=1, le=1e12)] | None,
        doc(
            "Units that can be taken at once after a pause: the size of the bucket. A request for more is refused"
            " whatever the rate. Absent: the rate, and never less than 1."
        ),
    ] = None


class Dimensions(Schema, frozen=True, kw_only=True):
    """What is counted. A dimension that is absent is unlimited."""

    requests: Annotated[Limit | None, doc("A bucket of requests: each request takes one, whatever its size.")] = None
    tokens: Annotated[
        Limit | None,
        doc(
            "A bucket of tokens: each request takes its prompt tokens + 2 x its completion tokens, estimated when it"
            " comes and corrected when its answer has ended."
        ),
    ] = None


class LimitPolicySpec(Schema, frozen=True, kw_only=True):
    """Limits for each API key and for the tenant as a whole; a request takes from all of them or from none."""

    per_key: Annotated[
        Dimensions, doc("Limits that each API key of a tenant has for itself. A dimension that is absent is unlimited.")
    ] = Dimensions()
    per_tenant: Annotated[
        Dimensions, doc("Limits that all API keys of a tenant share. A dimension that is absent is unlimited.")
    ] = Dimensions()


class LimitPolicyStatus(_Status, frozen=True, kw_only=True):
    """What the operator found. Nothing reads it as input."""

    tenants: Annotated[Count, doc("Tenants that name this policy.")] = 0
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(max_length=16),
        keyed("type"),
        doc("Accepted: the spec is right. Ready: it is in the snapshot that all services read."),
    ] = ()


class LimitPolicy(CustomResource, frozen=True, kw_only=True, tag="LimitPolicy"):
    """How much a tenant may take, for each API key and as a whole.

    Tenants name a policy; each tenant has buckets of its own. A request takes from all of them or from none, and a
    refusal says when to come back.
    """

    plural: ClassVar = "limitpolicies"
    short_name: ClassVar = "lp"
    columns: ClassVar = (
        Column("Tenants", ".status.tenants", "integer", "Tenants that name this policy."),
        _READY,
        _AGE,
        Column("Key-Requests", ".spec.perKey.requests.rate", "number", "Requests a period for each key.", wide=True),
        Column("Key-Tokens", ".spec.perKey.tokens.rate", "number", "Tokens a period for each key.", wide=True),
        Column("Requests", ".spec.perTenant.requests.rate", "number", "Requests a period for a tenant.", wide=True),
        Column("Tokens", ".spec.perTenant.tokens.rate", "number", "Tokens a period for a tenant.", wide=True),
    )

    api_version: Literal["millrace.dev/v1alpha1"]
    metadata: Metadata
    spec: Annotated[LimitPolicySpec, doc("The limits.")]
    status: Annotated[
        LimitPolicyStatus | None, doc("What the operator found. A manifest that brings one along changes nothing.")
    ] = None


# -- Tenant -------------------------------------------------------------------------------------------------------------


class SecretRef(Schema, frozen=True, kw_only=True):
    """An entry of a Secret: an API key, or the SHA-256 of one in hexadecimal."""

    name: Annotated[ObjectName, doc("Name of the Secret in the tenant's namespace.")]
    key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253)] | None,
        doc("Which entry of the Secret. Absent: its only one."),
    ] = None


class Key(Schema, frozen=True, kw_only=True):
    """How the tenant proves who it is: exactly one of secretRef and sha256."""

    rules: ClassVar = (
        Rule(
            "has(self.secretRef) != has(self.sha256)",
            "exactly one of secretRef and sha256 is needed: set the one that you have and remove the other",
        ),
    )

    name: Annotated[Name, doc("What logs, usage records and limits call the key; unique within the tenant.")]
    secret_ref: Annotated[SecretRef | None, doc("Where the key, or its SHA-256, stands in a Secret.")] = None
    sha256: Annotated[
        Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)] | None,
        doc("SHA-256 of the key in hexadecimal: printf %s mr_... | sha256sum. The key itself never stands in a spec."),
    ] = None


class TenantSpec(Schema, frozen=True, kw_only=True):
    """Who pays, what it may use and how much."""

    keys: Annotated[
        tuple[Key, ...],
        Meta(max_length=64),
        keyed("name"),
        doc("The tenant's API keys. A key that is removed is refused within seconds. No key belongs to two tenants."),
    ] = ()
    models: Annotated[
        tuple[ModelName, ...], Meta(max_length=128), doc("Models that it may use, as clients name them. Absent: all.")
    ] = ()
    classes: Annotated[
        tuple[ClassName, ...],
        Meta(max_length=4),
        doc(
            "Priority classes that it may use. Critical is served first and never shed, so it is given by contract,"
            " never by omission."
        ),
    ] = ("standard", "batch", "background")
    weight: Annotated[
        Annotated[float, Meta(gt=0, le=1000)],
        doc("Its share of a class while tenants compete: one with 2 gets twice the work done of one with 1."),
    ] = 1.0
    limit_policy: Annotated[
        Name | None, doc("LimitPolicy in the same namespace that says how much it may take. Absent: unlimited.")
    ] = None
    retention_seconds: Annotated[
        Annotated[float, Meta(ge=1, le=604_800)],
        doc("How long an answer can still be read after its end, in seconds. Longer costs memory in Redis."),
    ] = 300.0
    origins: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=253)], ...],
        Meta(max_length=64),
        doc(
            "Origins of web pages that may use its keys, as browsers write them: https://chat.example.com, without a"
            " path. Absent: only the gateway's own pages."
        ),
    ] = ()


class TenantStatus(_Status, frozen=True, kw_only=True):
    """What the operator found. Nothing reads it as input."""

    keys: Annotated[Count, doc("API keys that work now.")] = 0
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(max_length=16),
        keyed("type"),
        doc(
            "Accepted: the spec is right, and every Secret, model and policy that it names exists. Ready: it is in the"
            " snapshot that all services read, so its keys work. KeysFound: every key is in the Secret that it names;"
            " the message says until when a lost one works."
        ),
    ] = ()


class Tenant(CustomResource, frozen=True, kw_only=True, tag="Tenant"):
    """Who pays: its API keys, what it may use and how much.

    Keys stand in Secrets or as hashes; services only ever see hashes. Deleting a tenant revokes its keys.
    """

    plural: ClassVar = "tenants"
    short_name: ClassVar = "tn"
    columns: ClassVar = (
        Column("Keys", ".status.keys", "integer", "API keys that work."),
        Column("Weight", ".spec.weight", "number", "Its share while tenants compete."),
        Column("Policy", ".spec.limitPolicy", "string", "The LimitPolicy that it names."),
        _READY,
        _AGE,
        Column("Classes", ".spec.classes", "string", "Priority classes that it may use.", wide=True),
    )

    api_version: Literal["millrace.dev/v1alpha1"]
    metadata: Metadata
    spec: Annotated[TenantSpec, doc("Its keys, what it may use and how much.")]
    status: Annotated[
        TenantStatus | None, doc("What the operator found. A manifest that brings one along changes nothing.")
    ] = None


# -- whole manifests ----------------------------------------------------------------------------------------------------


class SecretMetadata(Metadata, frozen=True, kw_only=True):
    """A Secret is Kubernetes' own kind, so its name may have dots."""

    name: ObjectName


class Secret(Schema, frozen=True, kw_only=True, tag_field="kind", tag="Secret"):
    """kind: Secret, as in Kubernetes: `data` is base64, `stringData` is plain."""

    api_version: Literal["v1"]
    metadata: SecretMetadata
    type: str = "Opaque"
    immutable: bool = False
    data: dict[str, str] = field(default_factory=dict)
    string_data: dict[str, str] = field(default_factory=dict)

    def entries(self) -> dict[str, str]:
        """All entries in plain text; one that is not base64 of UTF-8 is empty, which no rule accepts."""
        return {name: _decoded(value) for name, value in self.data.items()} | self.string_data


CUSTOM_RESOURCES: tuple[type[CustomResource], ...] = (WorkerPool, ModelRoute, Tenant, LimitPolicy)
Resource: TypeAlias = WorkerPool | ModelRoute | LimitPolicy | Tenant | Secret
KINDS = ("WorkerPool", "ModelRoute", "LimitPolicy", "Tenant", "Secret")


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
