"""The simulated engine: its pace, and its faults on request."""

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from millrace.task.v1.task_pb2 import Message
from services.worker.adapters.simulator_engine import Pacing, SimulatorEngine, SimulatorPrompts, Ticker
from services.worker.core.simulated_text import simulated_text
from services.worker.ports import EngineChunk, EngineFault, EngineRequest, FaultKind


def request(content: str, max_tokens: int = 20, **rest: object) -> EngineRequest:
    prompt = SimulatorPrompts().render([Message(role="user", content=content)])
    return EngineRequest(request_id="r", prompt=prompt, max_tokens=max_tokens, deadline=time.time() + 60, **rest)  # type: ignore[arg-type]


async def collect(stream: AsyncGenerator[EngineChunk, None]) -> tuple[str, EngineFault | None]:
    text = ""
    try:
        async for chunk in stream:
            text += chunk.text
    except EngineFault as fault:
        return text, fault
    return text, None


async def test_any_answer_is_known_beforehand():
    """The text is `simulated_text` of the rendered prompt, across attempts that fail at different places."""
    engine = SimulatorEngine(Pacing(tokens_per_s=5000))
    asked = request("[[sim fault=continue@7]] Hello", 20)
    begun, fault = await collect(engine.generate(asked))
    assert fault is not None
    assert begun == simulated_text(asked.prompt, 7)
    rest, fault = await collect(engine.generate(request("[[sim fault=continue@7]] Hello", 13, forced_prefix=begun)))
    assert fault is None
    assert begun + rest == simulated_text(asked.prompt, 20)


async def test_a_continuation_may_begin_inside_a_word():
    """A prefix that a stop string's beginning cut short is completed."""
    asked = request("Hello", 5)
    whole = simulated_text(asked.prompt, 5)
    rest, _ = await collect(SimulatorEngine().generate(request("Hello", 0, forced_prefix=whole[:-2])))
    assert whole[:-2] + rest == whole


async def test_a_prefix_it_never_said_is_a_fatal_fault():
    """Whoever changed an answer's bytes finds out here."""
    _, fault = await collect(SimulatorEngine().generate(request("Hello", 5, forced_prefix="something else ")))
    assert fault is not None
    assert fault.kind is FaultKind.FATAL


@pytest.mark.parametrize("kind", list(FaultKind))
async def test_a_prompt_asks_for_a_fault(kind: FaultKind):
    """Each kind, after as many tokens as asked for; one at 0 comes before any text."""
    engine, word = SimulatorEngine(Pacing(tokens_per_s=5000)), kind.partition("_")[0]
    for tokens in (0, 3):
        asked = request(f"[[sim fault={word}@{tokens}]]")
        text, fault = await collect(engine.generate(asked))
        assert (text, fault and fault.kind) == (simulated_text(asked.prompt, tokens), kind)


async def test_a_prompt_asks_for_its_length_and_pace():
    """Three tokens at 100 a second after a prefill of 20 ms take 50 ms; the reason is `stop`."""
    begun = time.monotonic()
    chunks = [chunk async for chunk in SimulatorEngine().generate(request("[[sim tokens=3 rate=100 prefill=0.02]]"))]
    assert time.monotonic() - begun >= 0.05
    assert (sum(chunk.tokens for chunk in chunks), chunks[-1].finish_reason) == (3, "stop")


async def test_tokens_come_at_their_time_however_slow_the_reader():
    """A reader that pauses gets what was due meanwhile in one chunk, and the last token is not later for it."""
    begun = time.monotonic()
    counts = []
    async for chunk in SimulatorEngine(Pacing(tokens_per_s=200)).generate(request("Hello", 40)):
        counts.append(chunk.tokens)
        if len(counts) == 1:
            await asyncio.sleep(0.1)
    assert counts[1] >= 15
    assert sum(counts) == 40
    assert 0.2 <= time.monotonic() - begun < 2


async def test_a_full_engine_is_slower():
    """With a slowdown of 1 the second of two streams runs at half the pace."""
    engine = SimulatorEngine(Pacing(tokens_per_s=200, batch_slowdown=1))
    first, second = engine.generate(request("a", 10)), engine.generate(request("b", 10))
    begun = time.monotonic()
    await anext(first)
    await asyncio.gather(collect(first), collect(second))
    assert time.monotonic() - begun >= 0.1
    assert engine.active == 0


async def test_a_closed_stream_is_not_active():
    """Closing frees it at once."""
    engine = SimulatorEngine(Pacing(tokens_per_s=100))
    stream = engine.generate(request("a", 1000))
    await anext(stream)
    assert engine.active == 1
    await stream.aclose()
    assert engine.active == 0


async def test_the_ticker_wakes_nobody_early_and_all_in_order():
    """Fifty sleepers with times in any order wake at or after their time, the earlier ones first."""
    ticker, woken = Ticker(grain_s=0.002), list[int]()
    base = ticker.now() + 0.05

    async def sleeper(number: int) -> None:
        due = base + (number * 7 % 50) * 0.002
        await ticker.until(due)
        assert ticker.now() >= due
        woken.append(number * 7 % 50)

    await asyncio.gather(*map(sleeper, range(50)))
    assert woken == sorted(woken)
