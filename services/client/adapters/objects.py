"""The objects of `millrace.v1`, as WebSocket messages and as the data of server-sent events."""

from typing import TypeAlias

import msgspec

from services.client.core.events import Event
from services.client.errors import LostError, refusal


class _Hello(msgspec.Struct, tag_field="t", tag="hello"):
    pass


class _Pong(msgspec.Struct, tag_field="t", tag="pong"):
    pass


class _Gone(msgspec.Struct, tag_field="t", tag="gone"):
    task: str
    code: str


class _GoingAway(msgspec.Struct, tag_field="t", tag="going_away"):
    reconnect_in_s: float = 0.0


class _Error(msgspec.Struct, tag_field="t", tag="error"):
    code: str
    message: str = ""
    retryable: bool = False
    retry_after_s: float | None = None
    field: str = ""


_Object: TypeAlias = Event | _Hello | _Pong | _Gone | _GoingAway | _Error
_decode = msgspec.json.Decoder(_Object).decode


def event_of(data: str | bytes) -> Event | None:
    """The event in an object, None if it says nothing about a task.

    Raises MillraceError for a refusal and for a task that is gone, LostError when the gateway goes away.
    """
    said: _Object = _decode(data)
    match said:
        case _Error() as e:
            raise refusal(e.code, e.message, retryable=e.retryable, retry_after_s=e.retry_after_s, field=e.field)
        case _Gone(task=task, code=code):
            raise refusal("unknown_task" if code == "unknown" else "gone", f"task {task} is {code}")
        case _GoingAway(reconnect_in_s=reconnect_in_s):
            raise LostError("the gateway goes away", reconnect_in_s)
        case _Hello() | _Pong():
            return None
        case _:
            return said
