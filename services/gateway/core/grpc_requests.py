"""A gRPC submission in the words that all transports share, so that the same rules refuse the same things."""

from dataclasses import replace
from typing import Any

import msgspec

from millrace.inference.v1.inference_pb2 import SubmitRequest
from millrace.task.v1.task_pb2 import CacheMode, PriorityClass
from services.chassis.errors import Problem
from services.gateway.core.submission import (
    BATCH_DEADLINE_S,
    CACHE_MODES,
    CLASS_NAMES,
    MAX_MESSAGES,
    Submission,
    SubmitFields,
    check,
    decode_problem,
    invalid,
)

_CACHE_NAMES = {number: name for name, number in CACHE_MODES.items()}


def submission_of(request: SubmitRequest, time_left_s: float | None = None) -> Submission | Problem:
    """The submission, or which field breaks which rule. `time_left_s`: the call's own deadline, if its end is the task's."""
    if request.input and request.messages:
        return invalid("messages", "not together with input")
    fields: dict[str, Any] = {
        "model": request.model,
        "input": request.input
        or [{"role": msg.role, "content": msg.content} for msg in request.messages[: MAX_MESSAGES + 1]],
        "stop": list(request.stop),
        "metadata": dict(request.metadata),
    }
    if request.priority_class != PriorityClass.PRIORITY_CLASS_UNSPECIFIED:
        fields["class"] = CLASS_NAMES.get(request.priority_class, "")
    if request.cache != CacheMode.CACHE_MODE_UNSPECIFIED:
        fields["cache"] = _CACHE_NAMES.get(request.cache, "")
    for name in ("temperature", "top_p", "seed"):
        if request.HasField(name):
            fields[name] = getattr(request, name)
    if request.key:
        fields["key"] = request.key
    if request.max_tokens:
        fields["max_tokens"] = request.max_tokens
    if request.HasField("deadline"):
        fields["deadline_s"] = request.deadline.ToNanoseconds() / 1e9
    match request.on_disconnect.WhichOneof("policy"):
        case "cancel":
            fields["on_disconnect"] = "cancel"
        case "cancel_after":
            fields["on_disconnect"] = {"cancel_after_s": request.on_disconnect.cancel_after.ToNanoseconds() / 1e9}
    try:
        submission = check(
            msgspec.convert(fields, SubmitFields), input_field="messages" if request.messages else "input"
        )
    except msgspec.ValidationError as wrong:
        return decode_problem(wrong)
    if isinstance(submission, Problem) or "deadline_s" in fields or time_left_s is None:
        return submission
    return replace(submission, deadline_s=min(max(time_left_s, 0.001), BATCH_DEADLINE_S))
