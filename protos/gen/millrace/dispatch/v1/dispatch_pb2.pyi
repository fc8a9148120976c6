import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from millrace.task.v1 import task_pb2 as _task_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerMessage(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[WorkerEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[WorkerEvent, _Mapping]]] = ...) -> None: ...

class WorkerEvent(_message.Message):
    __slots__ = ("hello", "credit", "started", "progress", "finished", "fenced", "need", "heartbeat")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    NEED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    credit: Credit
    started: Started
    progress: Progress
    finished: Finished
    fenced: Fenced
    need: Need
    heartbeat: Heartbeat
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., fenced: _Optional[_Union[Fenced, _Mapping]] = ..., need: _Optional[_Union[Need, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("worker", "boot", "pool", "slots", "highest_epoch", "running", "finished", "draining")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    worker: str
    boot: int
    pool: str
    slots: int
    highest_epoch: int
    running: _containers.RepeatedCompositeFieldContainer[Running]
    finished: _containers.RepeatedCompositeFieldContainer[Finished]
    draining: bool
    def __init__(self, worker: _Optional[str] = ..., boot: _Optional[int] = ..., pool: _Optional[str] = ..., slots: _Optional[int] = ..., highest_epoch: _Optional[int] = ..., running: _Optional[_Iterable[_Union[Running, _Mapping]]] = ..., finished: _Optional[_Iterable[_Union[Finished, _Mapping]]] = ..., draining: _Optional[bool] = ...) -> None: ...

class Running(_message.Message):
    __slots__ = ("task", "attempt")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    task: str
    attempt: int
    def __init__(self, task: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: int
    def __init__(self, slots: _Optional[int] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("task", "attempt", "prompt_tokens")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    task: str
    attempt: int
    prompt_tokens: int
    def __init__(self, task: _Optional[str] = ..., attempt: _Optional[int] = ..., prompt_tokens: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("task", "attempt", "completion_tokens", "cancel_wished")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_WISHED_FIELD_NUMBER: _ClassVar[int]
    task: str
    attempt: int
    completion_tokens: int
    cancel_wished: bool
    def __init__(self, task: _Optional[str] = ..., attempt: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., cancel_wished: _Optional[bool] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("task", "attempt", "run_id", "outcome", "failure", "handed_back")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    HANDED_BACK_FIELD_NUMBER: _ClassVar[int]
    task: str
    attempt: int
    run_id: str
    outcome: _task_pb2.Outcome
    failure: str
    handed_back: bool
    def __init__(self, task: _Optional[str] = ..., attempt: _Optional[int] = ..., run_id: _Optional[str] = ..., outcome: _Optional[_Union[_task_pb2.Outcome, _Mapping]] = ..., failure: _Optional[str] = ..., handed_back: _Optional[bool] = ...) -> None: ...

class Fenced(_message.Message):
    __slots__ = ("task", "attempt")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    task: str
    attempt: int
    def __init__(self, task: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Need(_message.Message):
    __slots__ = ("task", "attempt", "run_id")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    task: str
    attempt: int
    run_id: str
    def __init__(self, task: _Optional[str] = ..., attempt: _Optional[int] = ..., run_id: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("busy",)
    BUSY_FIELD_NUMBER: _ClassVar[int]
    busy: float
    def __init__(self, busy: _Optional[float] = ...) -> None: ...

class DispatcherMessage(_message.Message):
    __slots__ = ("epoch", "events")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    events: _containers.RepeatedCompositeFieldContainer[DispatcherEvent]
    def __init__(self, epoch: _Optional[int] = ..., events: _Optional[_Iterable[_Union[DispatcherEvent, _Mapping]]] = ...) -> None: ...

class DispatcherEvent(_message.Message):
    __slots__ = ("welcome", "assign", "cancel", "finished_ack")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ASSIGN_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    FINISHED_ACK_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    assign: Assign
    cancel: Cancel
    finished_ack: FinishedAck
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., assign: _Optional[_Union[Assign, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., finished_ack: _Optional[_Union[FinishedAck, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("commit_horizon_s",)
    COMMIT_HORIZON_S_FIELD_NUMBER: _ClassVar[int]
    commit_horizon_s: float
    def __init__(self, commit_horizon_s: _Optional[float] = ...) -> None: ...

class Assign(_message.Message):
    __slots__ = ("task", "attempt", "previous_attempt", "attempts", "first_started", "run_id")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    FIRST_STARTED_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    task: _task_pb2.Task
    attempt: int
    previous_attempt: int
    attempts: int
    first_started: _timestamp_pb2.Timestamp
    run_id: str
    def __init__(self, task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ..., attempt: _Optional[int] = ..., previous_attempt: _Optional[int] = ..., attempts: _Optional[int] = ..., first_started: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., run_id: _Optional[str] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("task", "attempt")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    task: str
    attempt: int
    def __init__(self, task: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class FinishedAck(_message.Message):
    __slots__ = ("task", "attempt")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    task: str
    attempt: int
    def __init__(self, task: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class SignalsRequest(_message.Message):
    __slots__ = ("pool", "address", "boot", "cancels", "watches", "unwatches")
    POOL_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    WATCHES_FIELD_NUMBER: _ClassVar[int]
    UNWATCHES_FIELD_NUMBER: _ClassVar[int]
    pool: str
    address: str
    boot: int
    cancels: _containers.RepeatedScalarFieldContainer[str]
    watches: _containers.RepeatedScalarFieldContainer[str]
    unwatches: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, pool: _Optional[str] = ..., address: _Optional[str] = ..., boot: _Optional[int] = ..., cancels: _Optional[_Iterable[str]] = ..., watches: _Optional[_Iterable[str]] = ..., unwatches: _Optional[_Iterable[str]] = ...) -> None: ...

class SignalsUpdate(_message.Message):
    __slots__ = ("epoch", "signal", "statuses")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    signal: PoolSignal
    statuses: _containers.RepeatedCompositeFieldContainer[TaskStatus]
    def __init__(self, epoch: _Optional[int] = ..., signal: _Optional[_Union[PoolSignal, _Mapping]] = ..., statuses: _Optional[_Iterable[_Union[TaskStatus, _Mapping]]] = ...) -> None: ...

class PoolSignal(_message.Message):
    __slots__ = ("pool", "work_s", "wait_s", "workers", "slots", "busy_slots", "waiting", "service_s", "classes", "heavy", "arrived", "ended", "dead", "last_dead_at")
    POOL_FIELD_NUMBER: _ClassVar[int]
    WORK_S_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    BUSY_SLOTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    SERVICE_S_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    HEAVY_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    LAST_DEAD_AT_FIELD_NUMBER: _ClassVar[int]
    pool: str
    work_s: float
    wait_s: float
    workers: int
    slots: int
    busy_slots: int
    waiting: int
    service_s: float
    classes: _containers.RepeatedCompositeFieldContainer[ClassSignal]
    heavy: _containers.RepeatedScalarFieldContainer[str]
    arrived: int
    ended: int
    dead: int
    last_dead_at: _timestamp_pb2.Timestamp
    def __init__(self, pool: _Optional[str] = ..., work_s: _Optional[float] = ..., wait_s: _Optional[float] = ..., workers: _Optional[int] = ..., slots: _Optional[int] = ..., busy_slots: _Optional[int] = ..., waiting: _Optional[int] = ..., service_s: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[ClassSignal, _Mapping]]] = ..., heavy: _Optional[_Iterable[str]] = ..., arrived: _Optional[int] = ..., ended: _Optional[int] = ..., dead: _Optional[int] = ..., last_dead_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ClassSignal(_message.Message):
    __slots__ = ("priority_class", "waiting", "work_s")
    PRIORITY_CLASS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    WORK_S_FIELD_NUMBER: _ClassVar[int]
    priority_class: _task_pb2.PriorityClass
    waiting: int
    work_s: float
    def __init__(self, priority_class: _Optional[_Union[_task_pb2.PriorityClass, str]] = ..., waiting: _Optional[int] = ..., work_s: _Optional[float] = ...) -> None: ...

class TaskStatus(_message.Message):
    __slots__ = ("task", "state", "position", "eta_s")
    TASK_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ETA_S_FIELD_NUMBER: _ClassVar[int]
    task: str
    state: str
    position: int
    eta_s: float
    def __init__(self, task: _Optional[str] = ..., state: _Optional[str] = ..., position: _Optional[int] = ..., eta_s: _Optional[float] = ...) -> None: ...
