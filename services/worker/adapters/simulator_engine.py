"""A simulated engine inside the worker: right shape, right pace, no model. Its text says nothing.

For load and chaos runs, where a real model on the same machine would be what is measured. Everything about one answer
follows from its prompt (`core/simulated_text.py`); only its pace comes from here.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count, islice
from math import ceil
from typing import Final

from millrace.task.v1.task_pb2 import Message
from services.worker.core.simulated_text import Behaviour, behaviour, simulated_count, simulated_text, simulated_tokens
from services.worker.core.stable_text import Piece, StableText
from services.worker.ports import EngineChunk, EngineFault, EngineRequest, EngineUsage, FaultKind

CONTEXT: Final = 131_072
TOKENS_PER_BLOCK: Final = 32
CACHED_BLOCKS: Final = 4096
_FAULTS: Final = {
    "retry": FaultKind.RETRY_ELSEWHERE,
    "continue": FaultKind.CONTINUE_ELSEWHERE,
    "hang": FaultKind.CONTINUE_ELSEWHERE,
    "away": FaultKind.AWAY,
    "fatal": FaultKind.FATAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """How fast the simulated engine is."""

    tokens_per_s: float = 50.0  # of one stream that is alone
    prefill_tokens_per_s: float = 20_000.0  # of what the prefix cache does not hold
    batch_slowdown: float = 0.0  # a stream that begins as the n-th runs at tokens_per_s / (1 + slowdown * (n - 1))
    stall_s: float = 5.0  # a `hang` becomes a fault after this long


class SimulatorEngine:
    """Streams the simulated text of each prompt. Token k is due at start + prefill + (k + 1) / rate, whatever happens."""

    def __init__(self, pacing: Pacing | None = None) -> None:
        self._pacing = pacing or Pacing()
        self._clock = Ticker()
        self._cache = _PrefixCache()
        self.active = 0  # streams now

    async def ready(self) -> bool:
        """Always."""
        return True

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        """Stream the answer. Raises EngineFault where the prompt asks for it, and FATAL for a prefix it never said."""
        try:
            wish = behaviour(request.prompt)
            words = _Stamps(request) if wish.stamped else _Words(request)
        except ValueError as error:
            raise EngineFault(FaultKind.FATAL, str(error), code="invalid_request") from error
        usage = self._usage(request.prompt)
        if usage.prompt_tokens >= CONTEXT:
            message = f"the prompt has {usage.prompt_tokens} tokens, the simulator holds {CONTEXT}"
            raise EngineFault(FaultKind.FATAL, message, code="invalid_request")
        self.active += 1
        try:
            first = done = words.first
            rate = wish.rate or self._pacing.tokens_per_s / (1 + self._pacing.batch_slowdown * (self.active - 1))
            begin = self._clock.now() + self._prefill_s(wish, usage)
            limit = first + request.max_tokens
            end = limit if wish.tokens is None else max(first, min(limit, wish.tokens))
            strikes_at = wish.fault_at if wish.fault and (first < wish.fault_at or not wish.fault_at + first) else -1
            while True:
                if done == strikes_at:
                    await self._strike(wish)
                due = done
                if done < end:
                    await self._clock.until(begin + (done - first + 1) / rate)
                    # Late, it gives what is due by now at once; it never runs ahead and never slows down.
                    due = min(end, max(done + 1, first + int((self._clock.now() - begin) * rate)))
                    if done < strikes_at:
                        due = min(due, strikes_at)
                last = due >= end and due != strikes_at
                piece = words.take(due - done, last=last)
                if last or piece.stopped:
                    reason = "length" if due >= limit and not piece.stopped else "stop"
                    yield EngineChunk(piece.text, due - done, reason, usage)
                    return
                yield EngineChunk(piece.text, due - done)
                done = due
        finally:
            self.active -= 1

    def _usage(self, prompt: str) -> EngineUsage:
        reused, missed = self._cache.load(prompt)
        return EngineUsage(simulated_count(prompt), reused * TOKENS_PER_BLOCK, reused, missed)

    def _prefill_s(self, wish: Behaviour, usage: EngineUsage) -> float:
        if wish.prefill_s is not None:
            return wish.prefill_s
        return (usage.prompt_tokens - usage.cached_tokens) / self._pacing.prefill_tokens_per_s

    async def _strike(self, wish: Behaviour) -> None:
        if wish.fault == "hang":
            await self._clock.until(self._clock.now() + self._pacing.stall_s)
        raise EngineFault(_FAULTS[wish.fault], f"simulated fault {wish.fault}@{wish.fault_at}")


class SimulatorPrompts:
    """The simulator's chat format: one line per message. Tokens are words."""

    context = CONTEXT

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt that `simulated_text` answers."""
        return "".join(f"{message.role}: {message.content}\n" for message in messages)

    def count(self, text: str) -> int:
        """Words."""
        return simulated_count(text)


class Ticker:
    """Wakes many streams with one timer. A stream is woken at its time or up to a grain after it, never before."""

    def __init__(self, grain_s: float = 0.02) -> None:
        self._grain_s = grain_s
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # (grain, order, who), a heap
        self._order = count()
        self._armed: tuple[int, asyncio.TimerHandle] | None = None

    @staticmethod
    def now() -> float:
        """The loop's time in seconds."""
        return asyncio.get_running_loop().time()

    async def until(self, due: float) -> None:
        """Return at `due`, at once if that has passed."""
        loop = asyncio.get_running_loop()
        if due <= loop.time():
            return
        grain = ceil(due / self._grain_s)
        woken: asyncio.Future[None] = loop.create_future()
        heappush(self._waiting, (grain, next(self._order), woken))
        self._arm(loop)
        await woken

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        grain = self._waiting[0][0]
        if self._armed:
            if self._armed[0] <= grain:
                return
            self._armed[1].cancel()
        self._armed = grain, loop.call_at(grain * self._grain_s, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._armed = None
        now = max(loop.time() / self._grain_s, self._waiting[0][0])
        while self._waiting and self._waiting[0][0] <= now:
            woken = heappop(self._waiting)[2]
            if not woken.done():
                woken.set_result(None)
        if self._waiting:
            self._arm(loop)


class _Words:
    """The words of one answer from where a call begins. `first`: tokens that its forced prefix has."""

    def __init__(self, request: EngineRequest) -> None:
        self.first = simulated_count(request.forced_prefix)
        begun = simulated_text(request.prompt, self.first)
        if not begun.startswith(request.forced_prefix):
            raise ValueError("the forced prefix is not what the simulator says to this prompt")
        self._rest = begun[len(request.forced_prefix) :]
        self._tokens = simulated_tokens(request.prompt, self.first)
        self._stable = StableText(request.stop) if request.stop else None
        self._said = ""

    def take(self, tokens: int, *, last: bool) -> Piece:
        """The text of the next tokens."""
        text = self._rest + "".join(islice(self._tokens, tokens))
        self._rest = ""
        if self._stable is None:
            return Piece(text, stopped=False)
        self._said += text
        piece = self._stable.take(self._said, last=last)
        assert isinstance(piece, Piece)
        return piece


class _Stamps:
    """The instants at which the tokens are made, in place of words."""

    def __init__(self, request: EngineRequest) -> None:
        self.first = simulated_count(request.forced_prefix)

    def take(self, tokens: int, *, last: bool) -> Piece:
        """As many stamps, of now."""
        return Piece(f"{time.monotonic_ns():016x} " * tokens, stopped=False)


class _PrefixCache:
    """Which blocks of words were seen lately, each known by all that stands before it."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, None] = OrderedDict()  # least recently seen first

    def load(self, prompt: str) -> tuple[int, int]:
        """(blocks found, blocks not found) of the prompt's beginning; all are known afterwards."""
        words = prompt.split(" ")
        key = reused = 0
        blocks = (len(words) - 1) // TOKENS_PER_BLOCK
        for number in range(blocks):
            key = hash((key, *words[number * TOKENS_PER_BLOCK : (number + 1) * TOKENS_PER_BLOCK]))
            if reused == number and key in self._known:
                reused += 1
            self._known[key] = None
            self._known.move_to_end(key)
        while len(self._known) > CACHED_BLOCKS:
            self._known.popitem(last=False)
        return reused, blocks - reused
