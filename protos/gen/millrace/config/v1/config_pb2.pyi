import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from millrace.task.v1 import task_pb2 as _task_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Snapshot(_message.Message):
    __slots__ = ("version", "compiled_at", "pools", "routes", "tenants")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COMPILED_AT_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    version: str
    compiled_at: _timestamp_pb2.Timestamp
    pools: _containers.RepeatedCompositeFieldContainer[Pool]
    routes: _containers.RepeatedCompositeFieldContainer[ModelRoute]
    tenants: _containers.RepeatedCompositeFieldContainer[Tenant]
    def __init__(self, version: _Optional[str] = ..., compiled_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pools: _Optional[_Iterable[_Union[Pool, _Mapping]]] = ..., routes: _Optional[_Iterable[_Union[ModelRoute, _Mapping]]] = ..., tenants: _Optional[_Iterable[_Union[Tenant, _Mapping]]] = ...) -> None: ...

class Pool(_message.Message):
    __slots__ = ("name", "model", "model_revision", "assets", "slots", "max_queue_s", "max_attempts", "context_tokens")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_REVISION_FIELD_NUMBER: _ClassVar[int]
    ASSETS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    model_revision: str
    assets: str
    slots: int
    max_queue_s: float
    max_attempts: int
    context_tokens: int
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., model_revision: _Optional[str] = ..., assets: _Optional[str] = ..., slots: _Optional[int] = ..., max_queue_s: _Optional[float] = ..., max_attempts: _Optional[int] = ..., context_tokens: _Optional[int] = ...) -> None: ...

class RouteTarget(_message.Message):
    __slots__ = ("pool", "weight")
    POOL_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    pool: str
    weight: int
    def __init__(self, pool: _Optional[str] = ..., weight: _Optional[int] = ...) -> None: ...

class ModelRoute(_message.Message):
    __slots__ = ("model", "targets", "fallback", "default_max_tokens", "max_tokens")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    model: str
    targets: _containers.RepeatedCompositeFieldContainer[RouteTarget]
    fallback: str
    default_max_tokens: int
    max_tokens: int
    def __init__(self, model: _Optional[str] = ..., targets: _Optional[_Iterable[_Union[RouteTarget, _Mapping]]] = ..., fallback: _Optional[str] = ..., default_max_tokens: _Optional[int] = ..., max_tokens: _Optional[int] = ...) -> None: ...

class Limit(_message.Message):
    __slots__ = ("rate", "period", "burst")
    RATE_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    rate: float
    period: _duration_pb2.Duration
    burst: float
    def __init__(self, rate: _Optional[float] = ..., period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., burst: _Optional[float] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("key_requests", "key_tokens", "tenant_requests", "tenant_tokens")
    KEY_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    KEY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TENANT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    TENANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    key_requests: Limit
    key_tokens: Limit
    tenant_requests: Limit
    tenant_tokens: Limit
    def __init__(self, key_requests: _Optional[_Union[Limit, _Mapping]] = ..., key_tokens: _Optional[_Union[Limit, _Mapping]] = ..., tenant_requests: _Optional[_Union[Limit, _Mapping]] = ..., tenant_tokens: _Optional[_Union[Limit, _Mapping]] = ...) -> None: ...

class ApiKey(_message.Message):
    __slots__ = ("name", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: bytes
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class Tenant(_message.Message):
    __slots__ = ("name", "keys", "models", "classes", "weight", "limits", "retention", "origins")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    ORIGINS_FIELD_NUMBER: _ClassVar[int]
    name: str
    keys: _containers.RepeatedCompositeFieldContainer[ApiKey]
    models: _containers.RepeatedScalarFieldContainer[str]
    classes: _containers.RepeatedScalarFieldContainer[_task_pb2.PriorityClass]
    weight: float
    limits: Limits
    retention: _duration_pb2.Duration
    origins: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., keys: _Optional[_Iterable[_Union[ApiKey, _Mapping]]] = ..., models: _Optional[_Iterable[str]] = ..., classes: _Optional[_Iterable[_Union[_task_pb2.PriorityClass, str]]] = ..., weight: _Optional[float] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., retention: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., origins: _Optional[_Iterable[str]] = ...) -> None: ...
