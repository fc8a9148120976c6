"""What a client is told about a task, the same on every transport. Offsets are bytes of UTF-8 answer text."""

from typing import Literal, TypeAlias

import msgspec


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="ack"):
    """The task is committed: from here on it ends in exactly one `Done`. `cache` says if its answer was known already."""

    key: str = ""
    task: str
    state: str = "queued"
    position: int | None = None
    eta_s: float | None = None
    cache: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="status"):
    """Where a waiting task stands; `position` and `eta_s` are estimates."""

    task: str
    state: str
    position: int | None = None
    eta_s: float | None = None


class Delta(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="delta"):
    """Text. (`gen`, `offset`) is the cursor after it: a watch from there goes on with the next byte."""

    task: str
    gen: str
    offset: int
    text: str


class Restarted(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="restarted"):
    """The text so far was lost with the only process that had it: discard it, the answer begins anew."""

    task: str
    gen: str
    offset: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens; `cached_tokens` of the prompt's were found in the engine's cache."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds since the submission, and how many attempts started."""

    queued_s: float = 0.0
    ttft_s: float = 0.0
    total_s: float = 0.0
    attempts: int = 0


class TaskError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task has no whole answer."""

    code: str
    message: str = ""
    retryable: bool = False


class Done(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="done"):
    """The end. What came before is the answer if `outcome` is `completed`, and incomplete otherwise."""

    task: str
    gen: str = ""
    offset: int = 0
    outcome: Literal["completed", "cancelled", "expired", "failed"]
    finish_reason: str = ""
    usage: Usage = Usage()
    timings: Timings = Timings()
    cache: str | None = None
    error: TaskError | None = None


Event: TypeAlias = Ack | Status | Delta | Restarted | Done


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it is now: `queued`, `running`, or how it ended (`completed`, `cancelled`, `expired`, `failed`)."""

    task: str
    state: str
    model: str = ""
    gen: str = ""
    offset: int = 0
    text: str = ""
    position: int | None = None
    eta_s: float | None = None
    error: TaskError | None = None
