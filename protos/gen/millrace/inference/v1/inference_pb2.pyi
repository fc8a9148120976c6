import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from millrace.task.v1 import task_pb2 as _task_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitRequest(_message.Message):
    __slots__ = ("key", "model", "input", "messages", "priority_class", "max_tokens", "temperature", "top_p", "seed", "stop", "deadline", "on_disconnect", "cache", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_CLASS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    ON_DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    key: str
    model: str
    input: str
    messages: _containers.RepeatedCompositeFieldContainer[_task_pb2.Message]
    priority_class: _task_pb2.PriorityClass
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    deadline: _duration_pb2.Duration
    on_disconnect: _task_pb2.OnDisconnect
    cache: _task_pb2.CacheMode
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, key: _Optional[str] = ..., model: _Optional[str] = ..., input: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[_task_pb2.Message, _Mapping]]] = ..., priority_class: _Optional[_Union[_task_pb2.PriorityClass, str]] = ..., max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., on_disconnect: _Optional[_Union[_task_pb2.OnDisconnect, _Mapping]] = ..., cache: _Optional[_Union[_task_pb2.CacheMode, str]] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("key", "task", "state", "position", "eta_s")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ETA_S_FIELD_NUMBER: _ClassVar[int]
    key: str
    task: str
    state: str
    position: int
    eta_s: float
    def __init__(self, key: _Optional[str] = ..., task: _Optional[str] = ..., state: _Optional[str] = ..., position: _Optional[int] = ..., eta_s: _Optional[float] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("task", "gen", "offset")
    TASK_FIELD_NUMBER: _ClassVar[int]
    GEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    task: str
    gen: str
    offset: int
    def __init__(self, task: _Optional[str] = ..., gen: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("state", "position", "eta_s")
    STATE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ETA_S_FIELD_NUMBER: _ClassVar[int]
    state: str
    position: int
    eta_s: float
    def __init__(self, state: _Optional[str] = ..., position: _Optional[int] = ..., eta_s: _Optional[float] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("gen", "offset", "text")
    GEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    gen: str
    offset: int
    text: str
    def __init__(self, gen: _Optional[str] = ..., offset: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class Restarted(_message.Message):
    __slots__ = ("gen",)
    GEN_FIELD_NUMBER: _ClassVar[int]
    gen: str
    def __init__(self, gen: _Optional[str] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("gen", "offset", "outcome")
    GEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    gen: str
    offset: int
    outcome: _task_pb2.Outcome
    def __init__(self, gen: _Optional[str] = ..., offset: _Optional[int] = ..., outcome: _Optional[_Union[_task_pb2.Outcome, _Mapping]] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("accepted", "status", "delta", "restarted", "done")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    RESTARTED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    status: Status
    delta: Delta
    restarted: Restarted
    done: Done
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., delta: _Optional[_Union[Delta, _Mapping]] = ..., restarted: _Optional[_Union[Restarted, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: str
    def __init__(self, task: _Optional[str] = ...) -> None: ...

class TaskView(_message.Message):
    __slots__ = ("task", "state", "model", "gen", "offset", "text", "outcome", "position", "eta_s")
    TASK_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    GEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ETA_S_FIELD_NUMBER: _ClassVar[int]
    task: str
    state: str
    model: str
    gen: str
    offset: int
    text: str
    outcome: _task_pb2.Outcome
    position: int
    eta_s: float
    def __init__(self, task: _Optional[str] = ..., state: _Optional[str] = ..., model: _Optional[str] = ..., gen: _Optional[str] = ..., offset: _Optional[int] = ..., text: _Optional[str] = ..., outcome: _Optional[_Union[_task_pb2.Outcome, _Mapping]] = ..., position: _Optional[int] = ..., eta_s: _Optional[float] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: str
    def __init__(self, task: _Optional[str] = ...) -> None: ...

class CancelReply(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: str
    def __init__(self, state: _Optional[str] = ...) -> None: ...
