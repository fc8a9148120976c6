"""gRPC, `millrace.inference.v1.Inference`; addresses are host:port."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Any, Literal, TypeVar, cast

import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from millrace.inference.v1 import inference_pb2 as pb
from millrace.inference.v1.inference_pb2_grpc import InferenceStub
from millrace.task.v1 import task_pb2
from services.client.core.events import Ack, Delta, Done, Event, Restarted, Status, TaskError, TaskView, Timings, Usage
from services.client.errors import LostError, MillraceError, refusal
from services.client.ports import Request

T = TypeVar("T")
Outcome = Literal["completed", "cancelled", "expired", "failed"]

_CALL_S = 10.0
_OPTIONS = [("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000)]
_CLASSES = {"critical": 1, "standard": 2, "batch": 3, "background": 4}
_CACHE_MODES = {"default": 1, "bypass": 2, "only": 3}
_OUTCOMES: Mapping[int, Outcome] = {1: "completed", 2: "cancelled", 3: "expired", 4: "failed"}
_MARKS = {1: "exact", 2: "coalesced"}
_PLAIN = ("key", "model", "max_tokens", "temperature", "top_p", "seed", "metadata")
_BROKEN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}


class GrpcTransport:
    """A `Transport`: `Generate`, and `Watch` from a cursor. One channel per address, shared by the calls."""

    def __init__(self, key: str) -> None:
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def stream(self, address: str, request: Request) -> AsyncGenerator[Event, None]:
        """Submit and read in one call."""
        call = self._stub(address).Generate(message_of(request), metadata=self._metadata)
        task = ""
        async with contextlib.aclosing(_read(call)) as events:
            async for event in events:
                if event.WhichOneof("event") == "accepted":
                    task = event.accepted.task
                yield event_of(event, task)

    async def watch(self, address: str, task: str, gen: str, offset: int) -> AsyncGenerator[Event, None]:
        """Read from a cursor."""
        wanted = pb.WatchRequest(task=task, gen=gen, offset=offset)
        call = self._stub(address).Watch(wanted, metadata=self._metadata)
        async with contextlib.aclosing(_read(call)) as events:
            async for event in events:
                yield event_of(event, task)

    async def get(self, address: str, task: str) -> TaskView:
        """A task as it is now."""
        stub = self._stub(address)
        view = await _answer(stub.Get(pb.GetRequest(task=task), metadata=self._metadata, timeout=_CALL_S))
        return TaskView(
            task=view.task,
            state=view.state,
            model=view.model,
            gen=view.gen,
            offset=view.offset,
            text=view.text,
            position=_optional(view, "position"),
            eta_s=_optional(view, "eta_s"),
            error=_error(view.outcome),
        )

    async def cancel(self, address: str, task: str) -> str:
        """Wish a task's end."""
        stub = self._stub(address)
        reply = await _answer(stub.Cancel(pb.CancelRequest(task=task), metadata=self._metadata, timeout=_CALL_S))
        return str(reply.state)

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close(None)

    def _stub(self, address: str) -> Any:
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=_OPTIONS)
        return InferenceStub(self._channels[address])  # type: ignore[no-untyped-call]


def message_of(request: Request) -> pb.SubmitRequest:
    """The fields of `submit` as their message."""
    message = pb.SubmitRequest(**{name: request[name] for name in _PLAIN if request.get(name) is not None})
    said = request["input"]
    if isinstance(said, str):
        message.input = said
    else:
        message.messages.extend(task_pb2.Message(role=turn["role"], content=turn["content"]) for turn in said)
    stop = request.get("stop") or []
    message.stop.extend([stop] if isinstance(stop, str) else stop)
    message.priority_class = cast(task_pb2.PriorityClass, _CLASSES[request.get("class") or "standard"])
    message.cache = cast(task_pb2.CacheMode, _CACHE_MODES[request.get("cache") or "default"])
    if request.get("deadline_s") is not None:
        message.deadline.FromMilliseconds(int(request["deadline_s"] * 1000))
    policy = request.get("on_disconnect")
    if isinstance(policy, Mapping):
        message.on_disconnect.cancel_after.FromMilliseconds(int(policy["cancel_after_s"] * 1000))
    elif policy is not None:
        setattr(message.on_disconnect, policy, True)
    return message


def event_of(event: pb.WatchEvent, task: str) -> Event:
    """An event as the client's own."""
    match event.WhichOneof("event"):
        case "accepted":
            a = event.accepted
            waits = {"position": _optional(a, "position"), "eta_s": _optional(a, "eta_s")}
            return Ack(key=a.key, task=a.task, state=a.state, **waits)
        case "status":
            s = event.status
            return Status(task=task, state=s.state, position=_optional(s, "position"), eta_s=_optional(s, "eta_s"))
        case "delta":
            return Delta(task=task, gen=event.delta.gen, offset=event.delta.offset, text=event.delta.text)
        case "restarted":
            return Restarted(task=task, gen=event.restarted.gen)
    end, outcome = event.done, event.done.outcome
    u, t = outcome.usage, outcome.timings
    return Done(
        task=task,
        gen=end.gen,
        offset=end.offset,
        outcome=_OUTCOMES.get(outcome.kind, "failed"),
        finish_reason=outcome.finish_reason,
        usage=Usage(
            prompt_tokens=u.prompt_tokens, cached_tokens=u.cached_tokens, completion_tokens=u.completion_tokens
        ),
        timings=Timings(queued_s=t.queued_s, ttft_s=t.ttft_s, total_s=t.total_s, attempts=t.attempts),
        cache=_MARKS.get(outcome.cache),
        error=_error(outcome),
    )


async def _read(call: Any) -> AsyncGenerator[pb.WatchEvent, None]:
    """The events of a call, which is cancelled when the reader stops reading."""
    try:
        async for event in call:
            yield event
            if event.WhichOneof("event") == "done":
                return
    except grpc.aio.AioRpcError as failed:
        raise _raised(failed) from failed
    finally:
        call.cancel()
    raise LostError("the stream ended before the answer did")


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as failed:
        raise _raised(failed) from failed


def _raised(failed: grpc.aio.AioRpcError) -> MillraceError | LostError:
    """The coded error in a status's details; without one, the status did not come from a gateway."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after_s = None
    trailing: dict[str, Any] = dict(cast(Any, failed.trailing_metadata()) or ())
    for detail in status_pb2.Status.FromString(trailing.get("grpc-status-details-bin", b"")).details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    message = failed.details() or failed.code().name
    if not info.reason:
        return LostError(message) if failed.code() in _BROKEN else refusal("internal", message)
    retryable = info.metadata.get("retryable") == "true" or retry_after_s is not None or failed.code() in _BROKEN
    field = info.metadata.get("field", "")
    return refusal(info.reason, message, retryable=retryable, retry_after_s=retry_after_s, field=field)


def _optional(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _error(outcome: task_pb2.Outcome) -> TaskError | None:
    if not outcome.error_code:
        return None
    retryable = outcome.error_code == "engine_failed"
    return TaskError(code=outcome.error_code, message=outcome.error_message, retryable=retryable)
