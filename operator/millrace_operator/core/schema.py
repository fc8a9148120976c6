"""The schema of the manifests: every field with its default, its bounds and what it means, in this one place.

Group `millrace.dev/v1alpha1`. A field that is not here is refused by name, so a typing error never passes as a default.
API keys stand in ordinary Secrets (`v1`): an entry's value is the key itself (`mr_` and 32 base32 characters) or, for
those who keep it elsewhere, the 64 hexadecimal digits of its SHA-256. Specs never hold a key.
"""

import base64
import binascii
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", description="a DNS label")]
ModelName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$", description="as clients write it")]
Tokens = Annotated[int, Meta(ge=1, le=1_000_000)]
Positive = Annotated[float, Meta(gt=0, le=1e12)]
ClassName = Literal["critical", "standard", "batch", "background"]


class _Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Base of all parts: camel case as in Kubernetes, unknown fields refused."""


class Metadata(_Schema, frozen=True, kw_only=True):
    """Of these only the name has a meaning here."""

    name: Name
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


# -- WorkerPool ---------------------------------------------------------------------------------------------------------


class Model(_Schema, frozen=True, kw_only=True):
    """What the engine of a pool runs."""

    name: ModelName  # the engine's own name of the model
    revision: str = "1"  # change it when the weights change: cached answers of the old ones are not found any more
    assets: str = ""  # folder with tokenizer and chat template; empty: the worker's setting says where
    context_tokens: Tokens = 2048  # prompt and completion together


class Concurrency(_Schema, frozen=True, kw_only=True):
    """How much a worker takes."""

    slots: Annotated[int, Meta(ge=1, le=4096)] = 8  # tasks that one worker runs at once


class Queue(_Schema, frozen=True, kw_only=True):
    """How much may wait."""

    max_seconds: Positive = 30.0  # waiting work per slot above which new work below critical is shed


class Poison(_Schema, frozen=True, kw_only=True):
    """When a task is given up."""

    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 3  # failures before it goes to the dead letters


class WorkerPoolSpec(_Schema, frozen=True, kw_only=True):
    """Workers of one model and one kind of accelerator."""

    model: Model
    concurrency: Concurrency = Concurrency()
    queue: Queue = Queue()
    poison: Poison = Poison()


# -- ModelRoute ---------------------------------------------------------------------------------------------------------


class Target(_Schema, frozen=True, kw_only=True):
    """One share of a route."""

    pool: Name
    weight: Annotated[int, Meta(ge=1, le=1000)] = 1  # share = weight / sum of the weights


class TokenBounds(_Schema, frozen=True, kw_only=True):
    """Completion tokens of one request."""

    default: Tokens = 256  # when the client names none
    max: Tokens = 1024  # more is refused


class ModelRouteSpec(_Schema, frozen=True, kw_only=True):
    """Where requests for a model name go."""

    model: ModelName | None = None  # the name clients use; absent: the manifest's name
    targets: Annotated[tuple[Target, ...], Meta(min_length=1, max_length=16)]
    fallback: Name | None = None  # pool for the time in which the chosen one has no workers
    tokens: TokenBounds = TokenBounds()


# -- LimitPolicy --------------------------------------------------------------------------------------------------------


class Limit(_Schema, frozen=True, kw_only=True):
    """A bucket: `rate` units are gained in each period, at most `burst` can be taken at once."""

    rate: Positive
    period_seconds: Positive = 60.0
    burst: Annotated[float, Meta(ge=1, le=1e12)] | None = None  # absent: the rate


class Dimensions(_Schema, frozen=True, kw_only=True):
    """What is counted; a dimension that is absent is unlimited. A token limit counts prompt + 2 x completion tokens."""

    requests: Limit | None = None
    tokens: Limit | None = None


class LimitPolicySpec(_Schema, frozen=True, kw_only=True):
    """Limits for each API key and for the tenant as a whole; a request takes from all of them or from none."""

    per_key: Dimensions = Dimensions()
    per_tenant: Dimensions = Dimensions()


# -- Tenant -------------------------------------------------------------------------------------------------------------


class SecretRef(_Schema, frozen=True, kw_only=True):
    """An entry of a Secret."""

    name: Name
    key: str | None = None  # absent: the Secret's only entry


class Key(_Schema, frozen=True, kw_only=True):
    """How the tenant proves who it is: exactly one of the two."""

    name: Name  # what logs, usage records and limits call it
    secret_ref: SecretRef | None = None
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None


class TenantSpec(_Schema, frozen=True, kw_only=True):
    """Who pays, what it may use and how much."""

    keys: Annotated[tuple[Key, ...], Meta(max_length=64)] = ()
    models: tuple[ModelName, ...] = ()  # empty: all
    classes: tuple[ClassName, ...] = ("standard", "batch", "background")
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0  # share of a class beside other tenants
    limit_policy: Name | None = None  # absent: unlimited
    retention_seconds: Annotated[float, Meta(ge=1, le=604_800)] = 300.0  # how long an unread answer is kept
    origins: tuple[str, ...] = ()  # of browsers; empty: same origin only


# -- whole manifests ----------------------------------------------------------------------------------------------------


class WorkerPool(_Schema, frozen=True, kw_only=True, tag_field="kind", tag="WorkerPool"):
    """kind: WorkerPool."""

    api_version: Literal["millrace.dev/v1alpha1"]
    metadata: Metadata
    spec: WorkerPoolSpec


class ModelRoute(_Schema, frozen=True, kw_only=True, tag_field="kind", tag="ModelRoute"):
    """kind: ModelRoute."""

    api_version: Literal["millrace.dev/v1alpha1"]
    metadata: Metadata
    spec: ModelRouteSpec

    @property
    def model(self) -> str:
        """The name clients use."""
        return self.spec.model or self.metadata.name


class LimitPolicy(_Schema, frozen=True, kw_only=True, tag_field="kind", tag="LimitPolicy"):
    """kind: LimitPolicy."""

    api_version: Literal["millrace.dev/v1alpha1"]
    metadata: Metadata
    spec: LimitPolicySpec


class Tenant(_Schema, frozen=True, kw_only=True, tag_field="kind", tag="Tenant"):
    """kind: Tenant."""

    api_version: Literal["millrace.dev/v1alpha1"]
    metadata: Metadata
    spec: TenantSpec


class Secret(_Schema, frozen=True, kw_only=True, tag_field="kind", tag="Secret"):
    """kind: Secret, as in Kubernetes: `data` is base64, `stringData` is plain."""

    api_version: Literal["v1"]
    metadata: Metadata
    type: str = "Opaque"
    immutable: bool = False
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}

    def entries(self) -> dict[str, str]:
        """All entries in plain text; one that is not base64 of UTF-8 is empty, which no rule accepts."""
        return {name: _decoded(value) for name, value in self.data.items()} | self.string_data


Resource: TypeAlias = WorkerPool | ModelRoute | LimitPolicy | Tenant | Secret
KINDS = ("WorkerPool", "ModelRoute", "LimitPolicy", "Tenant", "Secret")


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
