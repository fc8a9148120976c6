"""A prompt from any transport, validated: what was asked, in one canonical form."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec

from millrace.task.v1.task_pb2 import CacheMode, Message, OnDisconnect, PriorityClass
from services.chassis.errors import ErrorCode, Problem

T = TypeVar("T")

CLASSES: dict[str, PriorityClass] = {
    "critical": PriorityClass.PRIORITY_CLASS_CRITICAL,
    "standard": PriorityClass.PRIORITY_CLASS_STANDARD,
    "batch": PriorityClass.PRIORITY_CLASS_BATCH,
    "background": PriorityClass.PRIORITY_CLASS_BACKGROUND,
}
CLASS_NAMES = {number: name for name, number in CLASSES.items()}
CACHE_MODES: dict[str, CacheMode] = {
    "default": CacheMode.CACHE_MODE_DEFAULT,
    "bypass": CacheMode.CACHE_MODE_BYPASS,
    "only": CacheMode.CACHE_MODE_ONLY,
}
DEADLINE_S = 600.0
BATCH_DEADLINE_S = 86_400.0
MAX_TASK_BYTES = 900 * 1024
MAX_MESSAGES = 2048  # as OpenAI; with what stands around their text a task's record fits Kafka's 1 MiB

Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One chat turn."""

    role: Literal["system", "user", "assistant"]
    content: str


class CancelAfter(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Cancelled unless a reader came back within this many seconds."""

    cancel_after_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class SubmitFields(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a client may ask for; a default of None means that the gateway or the model route has one."""

    key: Name | None = None
    model: Name
    input: str | list[ChatMessage]
    priority: Literal["critical", "standard", "batch", "background"] = msgspec.field(default="standard", name="class")
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    conversation: str | None = None
    previous: str | None = None
    deadline_s: Annotated[float, msgspec.Meta(gt=0, le=BATCH_DEADLINE_S)] | None = None
    on_disconnect: Literal["keep", "cancel"] | CancelAfter | None = None
    cache: Literal["default", "bypass", "only"] = "default"
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A valid prompt. `max_tokens` 0 = the route's default; `key` empty = the gateway makes one.

    `asked_deadline_s` is the deadline of the request itself, given or default. `deadline_s`, which holds, may be what was left of
    the client's call instead: no retry has the same, so a key does not stand for it.
    """

    key: str
    model: str
    messages: tuple[ChatMessage, ...]
    priority_class: PriorityClass
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    deadline_s: float
    asked_deadline_s: float
    on_disconnect: str | float
    cache_mode: CacheMode
    metadata: dict[str, str]

    @property
    def repeatable(self) -> bool:
        """Does the same request give the same answer, so that a cache may be asked?"""
        return self.temperature == 0 or self.seed is not None

    @property
    def content_bytes(self) -> int:
        """UTF-8 bytes of all turns."""
        return sum(len(m.content.encode()) for m in self.messages)

    def task_messages(self) -> list[Message]:
        """The turns as the task record carries them."""
        return [Message(role=m.role, content=m.content) for m in self.messages]

    def task_on_disconnect(self) -> OnDisconnect:
        """The policy as the task record carries it."""
        policy = OnDisconnect()
        if self.on_disconnect == "keep":
            policy.keep = True
        elif self.on_disconnect == "cancel":
            policy.cancel = True
        else:
            policy.cancel_after.FromMilliseconds(int(float(self.on_disconnect) * 1000))
        return policy


def invalid(field: str, rule: str) -> Problem:
    """A refusal that names the field and the rule."""
    return Problem(ErrorCode.INVALID_REQUEST, f"{field}: {rule}" if field else rule, field)


_AT = re.compile(r"^(?P<rule>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>.*)`$", re.DOTALL)


def decoded(decode: Callable[[bytes], T], raw: bytes) -> T | Problem:
    """What a client sent, or what is wrong with it."""
    try:
        return decode(raw)
    except msgspec.DecodeError as wrong:
        return decode_problem(wrong)
    except UnicodeDecodeError:
        return Problem(ErrorCode.INVALID_REQUEST, "not valid UTF-8")
    except RecursionError:
        return Problem(ErrorCode.INVALID_REQUEST, "nested too deeply")


def decode_problem(wrong: msgspec.DecodeError) -> Problem:
    """What msgspec refused, as a problem that names field and rule.

    >>> decode_problem(msgspec.ValidationError("Expected `int`, got `str` - at `$.max_tokens`"))
    Problem(code=<ErrorCode.INVALID_REQUEST: 'invalid_request'>, message='max_tokens: expected `int`, got `str`', field='max_tokens', retry_after_s=None)
    """
    if not isinstance(wrong, msgspec.ValidationError):
        return Problem(ErrorCode.INVALID_REQUEST, f"not valid JSON: {wrong}")
    match = _AT.match(str(wrong))
    assert match is not None
    rule, path = match["rule"], match["path"] or ""
    for pattern, sentence in ((_UNKNOWN, "unknown field"), (_MISSING, "this field is required")):
        if named := pattern.match(rule):
            return invalid(f"{path}.{named['field']}" if path else named["field"], sentence)
    return invalid(path, rule[:1].lower() + rule[1:])


def _not_installed(field: str, service: str) -> Problem:
    return invalid(field, f"the {service} service is not installed")


def check(fields: SubmitFields, default_policy: str = "keep", input_field: str = "input") -> Submission | Problem:
    """The submission, or which field breaks which rule. `input_field` is the transport's name of the prompt."""
    if fields.conversation is not None:
        return _not_installed("conversation", "conversation")
    if fields.previous is not None:
        return _not_installed("previous", "conversation")
    messages = (ChatMessage("user", fields.input),) if isinstance(fields.input, str) else tuple(fields.input)
    if not messages or not any(m.content for m in messages):
        return invalid(input_field, "must not be empty")
    if len(messages) > MAX_MESSAGES:
        return invalid(input_field, f"at most {MAX_MESSAGES} messages")
    stop = (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ())
    if len(stop) > 4 or not all(0 < len(s) <= 64 for s in stop):
        return invalid("stop", "at most 4 strings of 1 to 64 characters")
    metadata = fields.metadata or {}
    if len(metadata) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in metadata.items()):
        return invalid("metadata", "at most 16 pairs, names up to 64 and values up to 512 characters")
    policy: str | float
    if isinstance(fields.on_disconnect, CancelAfter):
        policy = fields.on_disconnect.cancel_after_s
    else:
        policy = fields.on_disconnect or default_policy
    waits_long = fields.priority in {"batch", "background"}
    deadline_s = fields.deadline_s or (BATCH_DEADLINE_S if waits_long else DEADLINE_S)
    submission = Submission(
        key=fields.key or "",
        model=fields.model,
        messages=messages,
        priority_class=CLASSES[fields.priority],
        max_tokens=fields.max_tokens or 0,
        temperature=1.0 if fields.temperature is None else fields.temperature,
        top_p=1.0 if fields.top_p is None else fields.top_p,
        seed=fields.seed,
        stop=stop,
        deadline_s=deadline_s,
        asked_deadline_s=deadline_s,
        on_disconnect=policy,
        cache_mode=CACHE_MODES[fields.cache],
        metadata=metadata,
    )
    if submission.content_bytes > MAX_TASK_BYTES:
        return Problem(ErrorCode.TOO_LARGE, f"{input_field}: more than {MAX_TASK_BYTES} bytes", input_field)
    if submission.cache_mode == CacheMode.CACHE_MODE_ONLY and not submission.repeatable:
        return invalid("cache", "`only` needs temperature 0 or a seed")
    return submission


def body_hash(submission: Submission) -> bytes:
    """SHA-256 of everything that was asked, without the key: the same key must come with the same hash."""
    s = submission
    asked = (
        s.model, [(m.role, m.content) for m in s.messages], int(s.priority_class), s.max_tokens, s.temperature, s.top_p,
        s.seed, s.stop, s.asked_deadline_s, s.on_disconnect, int(s.cache_mode), sorted(s.metadata.items()),
    )  # fmt: skip
    return hashlib.sha256(msgspec.msgpack.encode(asked)).digest()
