"""What the worker needs from the world."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from millrace.frames.v1.frames_pb2 import FrameBatch
from millrace.task.v1.task_pb2 import Message


class FaultKind(StrEnum):
    """What to do after an engine fault."""

    RETRY_ELSEWHERE = "retry_elsewhere"  # this call gave no text: another worker may begin where this one did
    CONTINUE_ELSEWHERE = "continue_elsewhere"  # the text so far is good: another worker goes on from it
    AWAY = (
        "away"  # the engine is not there and never saw the request: nobody's failure, and no more work until it answers
    )
    FATAL = "fatal"  # no engine of this model would do better: end the task


class EngineFault(Exception):  # noqa: N818  (the design's word: a fault of the engine, not an error of ours)
    """The engine failed this request.

    `code` is the name from `chassis/errors.py` that a FATAL fault ends the task with.
    """

    def __init__(self, kind: FaultKind, message: str, code: str = "engine_failed") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One generation.

    `prompt` is rendered: chat template applied. `forced_prefix` is the answer's text so far when an attempt continues
    another's: the engine goes on after it and does not repeat it. `max_tokens` are those still wanted. `temperature` 0
    is greedy; without a `seed` the engine chooses. `deadline` in Unix seconds.
    """

    request_id: str
    prompt: str
    forced_prefix: str = ""
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    deadline: float


@dataclass(frozen=True, slots=True)
class EngineUsage:
    """What the engine says about a request when it ends: tokens, and blocks of its KV cache."""

    prompt_tokens: int
    cached_tokens: int
    reused_blocks: int
    missed_blocks: int


@dataclass(frozen=True, slots=True)
class EngineChunk:
    """A piece of the answer.

    `text` is new and final: whole code points, never taken back, may be empty. `tokens` were generated since the chunk
    before. The last chunk, and only that, has a `finish_reason` (`stop` or `length`) and the `usage`.
    """

    text: str
    tokens: int
    finish_reason: str | None = None
    usage: EngineUsage | None = None


class Engine(Protocol):
    """Makes text, of many requests at once. How many are worth sending is the caller's business."""

    async def ready(self) -> bool:
        """Would a request be served now?"""
        ...

    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        """Stream the answer. `aclose()` of the generator, or cancelling the task in it, cancels in the engine.

        Raises EngineFault; an engine that falls silent is a fault too. The deadline is the caller's to enforce; the engine
        only never outlives it.
        """
        ...


class Prompts(Protocol):
    """How a model wants to be spoken to: its chat template and its tokenizer."""

    @property
    def context(self) -> int:
        """Tokens the model can hold, prompt and answer together."""
        ...

    def render(self, messages: Sequence[Message]) -> str:
        """The text the engine gets: template applied, special tokens removed from contents, answer begun.

        Raises ValueError, with a message for the client, when the template refuses the messages.
        """
        ...

    def count(self, text: str) -> int:
        """Tokens of a rendered prompt or of an answer."""
        ...


class FramePublisher(Protocol):
    """Live frames to the gateways that read. They are hints: losing one costs its reader latency, never a byte."""

    def push(self, address: str, batch: FrameBatch) -> None:
        """Send to the frames server at `address`. Never waits and never raises, whatever that gateway does."""
        ...
