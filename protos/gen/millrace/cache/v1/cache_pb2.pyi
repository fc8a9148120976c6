import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from millrace.batch.v1 import batch_pb2 as _batch_pb2
from millrace.task.v1 import task_pb2 as _task_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Scope(_message.Message):
    __slots__ = ("tenant", "model", "model_revision")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_REVISION_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    model: str
    model_revision: str
    def __init__(self, tenant: _Optional[str] = ..., model: _Optional[str] = ..., model_revision: _Optional[str] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("scope", "request", "task", "priority_class", "lead_for")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_CLASS_FIELD_NUMBER: _ClassVar[int]
    LEAD_FOR_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    request: bytes
    task: str
    priority_class: _task_pb2.PriorityClass
    lead_for: _duration_pb2.Duration
    def __init__(self, scope: _Optional[_Union[Scope, _Mapping]] = ..., request: _Optional[bytes] = ..., task: _Optional[str] = ..., priority_class: _Optional[_Union[_task_pb2.PriorityClass, str]] = ..., lead_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("text", "finish_reason", "usage", "age_s")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    text: str
    finish_reason: str
    usage: _task_pb2.Usage
    age_s: float
    def __init__(self, text: _Optional[str] = ..., finish_reason: _Optional[str] = ..., usage: _Optional[_Union[_task_pb2.Usage, _Mapping]] = ..., age_s: _Optional[float] = ...) -> None: ...

class LookupReply(_message.Message):
    __slots__ = ("key", "answer", "leader", "fence")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    answer: Answer
    leader: str
    fence: str
    def __init__(self, key: _Optional[bytes] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., leader: _Optional[str] = ..., fence: _Optional[str] = ...) -> None: ...

class StoreRequest(_message.Message):
    __slots__ = ("key", "fence", "answer", "keep")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    fence: str
    answer: Answer
    keep: _duration_pb2.Duration
    def __init__(self, key: _Optional[bytes] = ..., fence: _Optional[str] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., keep: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StoreReply(_message.Message):
    __slots__ = ("stored",)
    STORED_FIELD_NUMBER: _ClassVar[int]
    stored: bool
    def __init__(self, stored: _Optional[bool] = ...) -> None: ...
