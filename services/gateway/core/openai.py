"""Chat completions in OpenAI's shape: requests to submissions, answers to completions and chunks.

What the engine cannot honour is refused by name. A parameter that is known to be harmless, or that asks for what happens
anyway, is accepted.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from millrace.task.v1.task_pb2 import Outcome
from services.chassis.errors import ERRORS, Problem
from services.gateway.core.messages import code_named, encode, usage_of
from services.gateway.core.submission import (
    CancelAfter,
    ChatMessage,
    Name,
    Submission,
    SubmitFields,
    check,
    invalid,
)


class TextPart(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class ChatTurn(msgspec.Struct, forbid_unknown_fields=True):
    """One message; `developer` is the newer name of `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What else a stream carries."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/chat/completions`. After `metadata`: parameters with one harmless value; last: Millrace's own."""

    model: Name
    messages: Annotated[list[ChatTurn], msgspec.Meta(min_length=1)]
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: dict[str, str] | None = None
    n: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    response_format: Any = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    modalities: Any = None
    store: Any = None
    service_tier: Any = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    priority: Literal["critical", "standard", "batch", "background"] = msgspec.field(default="standard", name="class")
    deadline_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    on_disconnect: Literal["keep", "cancel"] | CancelAfter | None = None
    cache: Literal["default", "bypass", "only"] = "default"


# Values that ask for what happens anyway; anything else cannot be honoured.
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}

decode_chat_request = msgspec.json.Decoder(ChatRequest).decode


def submission_of(request: ChatRequest, key: str | None) -> Submission | Problem:
    """The submission behind a chat completion. Its client cannot come back for the rest, so `cancel` is the default policy."""
    for name, values in _NEUTRAL.items():
        given = getattr(request, name)
        if given is not None and given not in values:
            return invalid(name, f"the engine cannot honour {encode(given).decode()[:80]}")
    return check(
        SubmitFields(
            key=key,
            model=request.model,
            input=[_turn(turn) for turn in request.messages],
            priority=request.priority,
            max_tokens=request.max_completion_tokens or request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=request.stop,
            deadline_s=request.deadline_s,
            on_disconnect=request.on_disconnect,
            cache=request.cache,
            metadata=request.metadata,
        ),
        default_policy="cancel",
        input_field="messages",
    )


def _turn(turn: ChatTurn) -> ChatMessage:
    content = turn.content if isinstance(turn.content, str) else "".join(part.text for part in turn.content)
    return ChatMessage("system" if turn.role == "developer" else turn.role, content)


class Completions:
    """Writes the answer of one task in OpenAI's shape. `created` in Unix seconds."""

    def __init__(self, task: str, model: str, created: int) -> None:
        self._base = {"id": f"chatcmpl-{task}", "created": created, "model": model}

    def whole(self, text: str, outcome: Outcome) -> bytes:
        """The answer of a plain request."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": outcome.finish_reason,
        }
        return encode(self._base | {"object": "chat.completion", "choices": [choice], "usage": usage(outcome)})

    def first(self) -> bytes:
        """The opening chunk: who speaks."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def text(self, text: str) -> bytes:
        """A chunk of text."""
        return self._chunk({"content": text}, None)

    def last(self, outcome: Outcome) -> bytes:
        """The chunk that says why the text ends."""
        return self._chunk({}, outcome.finish_reason)

    def usage(self, outcome: Outcome) -> bytes:
        """The chunk after the last, if `stream_options.include_usage` asked for it."""
        return encode(self._base | {"object": "chat.completion.chunk", "choices": [], "usage": usage(outcome)})

    def _chunk(self, delta: dict[str, str], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return encode(self._base | {"object": "chat.completion.chunk", "choices": [choice]})


def usage(outcome: Outcome) -> dict[str, Any]:
    """Tokens in OpenAI's names."""
    u = usage_of(outcome)
    return {
        "prompt_tokens": u.prompt_tokens,
        "completion_tokens": u.completion_tokens,
        "total_tokens": u.prompt_tokens + u.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": u.cached_tokens},
    }


def problem_of(outcome: Outcome) -> Problem | None:
    """Why a task has no whole answer; None if it has."""
    if not outcome.error_code:
        return None
    return Problem(code_named(outcome.error_code), outcome.error_message)


_TYPES: Final = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def error_body(problem: Problem) -> bytes:
    """A refusal in OpenAI's shape, with our fields beside theirs; the body of every HTTP error and of error chunks.

    >>> error_body(invalid("n", "must be 1"))
    b'{"error":{"message":"n: must be 1","type":"invalid_request_error","param":"n","code":"invalid_request","retryable":false}}'
    """
    row = ERRORS[problem.code]
    kind = _TYPES.get(row.http) or ("invalid_request_error" if row.http < 500 else "server_error")
    body: dict[str, Any] = {
        "message": problem.message,
        "type": kind,
        "param": problem.field or None,
        "code": problem.code.value,
        "retryable": row.retryable,
    }
    if problem.retry_after_s is not None:
        body["retry_after_s"] = problem.retry_after_s
    return encode({"error": body})
