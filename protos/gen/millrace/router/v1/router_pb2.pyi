import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from millrace.batch.v1 import batch_pb2 as _batch_pb2
from millrace.cache.v1 import cache_pb2 as _cache_pb2
from millrace.task.v1 import task_pb2 as _task_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AcceptRequest(_message.Message):
    __slots__ = ("task", "answer")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    task: _task_pb2.Task
    answer: _cache_pb2.Answer
    def __init__(self, task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ..., answer: _Optional[_Union[_cache_pb2.Answer, _Mapping]] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("code", "message", "retry_after")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retry_after: _duration_pb2.Duration
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("pool", "repeated", "joined")
    POOL_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    pool: str
    repeated: bool
    joined: str
    def __init__(self, pool: _Optional[str] = ..., repeated: _Optional[bool] = ..., joined: _Optional[str] = ...) -> None: ...

class AcceptReply(_message.Message):
    __slots__ = ("accepted", "rejected")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    rejected: Rejected
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ..., rejected: _Optional[_Union[Rejected, _Mapping]] = ...) -> None: ...
