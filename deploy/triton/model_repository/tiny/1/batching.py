"""Continuous batching: who computes what in the next step.

A step decodes one token of every running sequence and then reads one piece of one waiting prompt, if there is one, so a
long prompt delays the others by one piece at a time. Prompts take turns piece by piece: a short one is not stuck behind
a long one. A finished sequence leaves its slot at once and the next one enters.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from time import time_ns

import numpy as np
from lm import LanguageModel
from paged_kv import PagedKv
from sampling import Sampling, pick
from vocabulary import Vocabulary

PIECE = 64  # prompt tokens read in one step: about 15 ms, three decoding steps


class Finish(Enum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"


class PromptTooLongError(ValueError):
    """The prompt leaves no room for an answer."""


class QueueFullError(RuntimeError):
    """As many requests wait as may."""


@dataclass(eq=False)
class Sequence:
    """One request: its prompt, what was generated, where it is. Times in nanoseconds since 1970."""

    prompt: list[int]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    arrived: int = field(default_factory=time_ns)

    scheduled: int = 0
    first_token: int = 0
    last_token: int = 0
    slot: int = -1
    read: int = 0  # prompt tokens whose state is computed
    reused_blocks: int = 0
    missed_blocks: int = 0
    generated: list[int] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    text: str = ""
    finish: Finish | None = None
    stop_reason: str | None = None  # the stop string that ended it


class Batcher:
    """Runs sequences on a model's slots. Not thread-safe: one thread owns it."""

    def __init__(
        self, model: LanguageModel, cache: PagedKv, vocabulary: Vocabulary, *, end_token: int, slots: int, queue: int
    ) -> None:
        self._model, self._cache, self._vocabulary, self._end = model, cache, vocabulary, end_token
        self._free = list(range(slots))
        self._queue = queue
        self.waiting: deque[Sequence] = deque()
        self.reading: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises PromptTooLongError and QueueFullError."""
        if not sequence.prompt:
            raise PromptTooLongError("the prompt is empty")
        if len(sequence.prompt) >= self._model.context:
            raise PromptTooLongError(
                f"the prompt has {len(sequence.prompt)} tokens, prompt and answer together must fit in "
                f"{self._model.context}"
            )
        if len(self.waiting) >= self._queue:
            raise QueueFullError(f"{self._queue} requests are waiting already")
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence wherever it is; one that has ended is left alone."""
        for place in (self.waiting, self.reading, self.running):
            if sequence in place:
                place.remove(sequence)
        self._release(sequence)

    def __iter__(self) -> Iterator[Sequence]:
        """All sequences that have not ended."""
        return iter((*self.waiting, *self.reading, *self.running))

    def step(self) -> list[Sequence]:
        """Compute; returns the sequences that got a token, ended ones with their `finish`."""
        self._admit()
        grown = self._decode() + self._read()
        for sequence in grown:
            if sequence.finish:
                self.running.remove(sequence)
                self._release(sequence)
        return grown

    def _admit(self) -> None:
        while self.waiting and self._free:
            sequence = self.waiting.popleft()
            sequence.slot = self._free.pop()
            sequence.scheduled = time_ns()
            found = self._cache.load(sequence.prompt, self._model.state[sequence.slot])
            sequence.reused_blocks, sequence.missed_blocks = found
            sequence.read = sequence.reused_blocks * self._cache.block
            self.reading.append(sequence)

    def _release(self, sequence: Sequence) -> None:
        """Give the slot back; what was computed stays in the cache for whoever comes with the same prefix."""
        if sequence.slot >= 0:
            known = (sequence.prompt[: sequence.read] + sequence.generated[:-1]) if sequence.read else []
            self._cache.save(known, self._model.state[sequence.slot])
            self._free.append(sequence.slot)
            sequence.slot = -1

    def _read(self) -> list[Sequence]:
        """Read a piece of the prompt whose turn it is. The last piece gives the first token."""
        if not self.reading:
            return []
        sequence = self.reading.popleft()
        piece = sequence.prompt[sequence.read : sequence.read + PIECE]
        logits = self._model.prefill(sequence.slot, piece, sequence.read)
        sequence.read += len(piece)
        if sequence.read < len(sequence.prompt):
            self.reading.append(sequence)
            return []
        self._cache.save(sequence.prompt, self._model.state[sequence.slot])
        self.running.append(sequence)
        self._grow(sequence, logits)
        return [sequence]

    def _decode(self) -> list[Sequence]:
        """One token for every sequence that has its first one."""
        batch = list(self.running)
        if not batch:
            return []
        logits = self._model.decode(
            [sequence.slot for sequence in batch],
            [sequence.generated[-1] for sequence in batch],
            [len(sequence.prompt) + len(sequence.generated) - 1 for sequence in batch],
        )
        for sequence, row in zip(batch, logits, strict=True):
            self._grow(sequence, row)
        return batch

    def _grow(self, sequence: Sequence, logits: np.ndarray) -> None:
        """Add the next token and see whether it was the last."""
        position = len(sequence.prompt) + len(sequence.generated)
        token = pick(logits, sequence.sampling, position)
        sequence.generated.append(token)
        sequence.last_token = time_ns()
        sequence.first_token = sequence.first_token or sequence.last_token
        if token == self._end:
            sequence.finish = Finish.STOP
            return
        sequence.raw += self._vocabulary.bytes_of(token)
        sequence.text = sequence.raw.decode(errors="replace")
        found = [(at, stop) for stop in sequence.stop if (at := sequence.text.find(stop)) >= 0]
        if found:
            at, sequence.stop_reason = min(found)
            sequence.text = sequence.text[:at]
            sequence.finish = Finish.STOP
        elif len(sequence.generated) >= sequence.max_tokens or position + 1 >= self._model.context:
            sequence.finish = Finish.LENGTH
