"""Port `Engine`: the simulator and the tiny language model in a real Triton."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from millrace.task.v1.task_pb2 import Message
from services.worker.adapters.assets_prompts import AssetsPrompts
from services.worker.adapters.simulator_engine import Pacing, SimulatorEngine, SimulatorPrompts
from services.worker.adapters.triton_engine import TritonEngine
from services.worker.ports import Engine, EngineChunk, EngineFault, EngineRequest, FaultKind, Prompts
from tests.support.components import component

TINY = Path(__file__).parents[2] / "deploy" / "triton" / "model_repository" / "tiny"
SILENCE_S = 1.0


@dataclass
class Subject:
    engine: Engine
    prompts: Prompts

    def request(self, content: str, max_tokens: int = 24, **rest: object) -> EngineRequest:
        prompt = self.prompts.render([Message(role="user", content=content)])
        return EngineRequest(
            request_id=uuid4().hex, prompt=prompt, max_tokens=max_tokens, deadline=time.time() + 60, **rest
        )  # type: ignore[arg-type]

    async def chunks(self, request: EngineRequest) -> list[EngineChunk]:
        return [chunk async for chunk in self.engine.generate(request)]

    async def text(self, content: str, max_tokens: int = 24, **rest: object) -> str:
        return "".join(chunk.text for chunk in await self.chunks(self.request(content, max_tokens, **rest)))


@pytest.fixture(params=["simulator", pytest.param("triton", marks=pytest.mark.real)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "simulator":
        yield Subject(SimulatorEngine(Pacing(tokens_per_s=400, stall_s=SILENCE_S)), SimulatorPrompts())
        return
    prompts = AssetsPrompts(TINY)
    async with TritonEngine(request.getfixturevalue("triton_address"), "tiny", prompts) as engine:
        yield Subject(engine, prompts)


async def test_a_running_engine_is_ready(subject: Subject):
    """The model itself answers."""
    assert await subject.engine.ready()


async def test_an_answer_ends_once_with_reason_and_usage(subject: Subject):
    """Every chunk before the last has neither, however few there are; the tokens add up to the limit."""
    *before, last = await subject.chunks(subject.request("Open a file", 24))
    assert {(chunk.finish_reason, chunk.usage) for chunk in before} <= {(None, None)}
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert last.usage.prompt_tokens == subject.prompts.count(subject.request("Open a file").prompt)
    assert sum(chunk.tokens for chunk in (*before, last)) == 24


async def test_greedy_answers_are_the_same_alone_and_in_company(subject: Subject):
    """Eight different prompts at once get the answers that each gets alone."""
    contents = [f"Tell me about item {number} " + "and more " * number for number in range(8)]
    alone = [await subject.text(content) for content in contents]
    together = await asyncio.gather(*(subject.text(content) for content in contents))
    assert together == alone


async def test_a_seed_repeats_an_answer(subject: Subject):
    """The same seed and temperature give the same text."""
    first = await subject.text("Sort a list", temperature=0.9, top_p=0.95, seed=7)
    assert first == await subject.text("Sort a list", temperature=0.9, top_p=0.95, seed=7)


async def test_text_ends_before_a_stop_string(subject: Subject):
    """The match is not in the text, lies across chunks, and the reason is `stop`."""
    whole = await subject.text("Open a file")
    stop = whole[10:18]
    chunks = await subject.chunks(subject.request("Open a file", stop=("not in there", stop)))
    assert "".join(chunk.text for chunk in chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage is not None


async def test_a_continuation_gives_the_rest_of_the_uninterrupted_text(subject: Subject):
    """From wherever an attempt was lost, prefix and rest are the whole."""
    chunks = await subject.chunks(subject.request("Open a file", 24))
    whole = "".join(chunk.text for chunk in chunks)
    for given in sorted({1, len(chunks) // 3, 2 * len(chunks) // 3, len(chunks) - 1} - {0}):
        prefix = "".join(chunk.text for chunk in chunks[:given])
        left = 24 - sum(chunk.tokens for chunk in chunks[:given])
        assert prefix + await subject.text("Open a file", left, forced_prefix=prefix) == whole


async def test_a_repeated_prefix_is_reused(subject: Subject):
    """The second request with a long prompt finds its blocks in the engine's cache."""
    content = f"{uuid4()} " + "a long story about a file " * 20
    [*_, cold] = await subject.chunks(subject.request(content, 2))
    [*_, warm] = await subject.chunks(subject.request(content, 2))
    assert cold.usage is not None
    assert warm.usage is not None
    assert cold.usage.missed_blocks > 2
    assert (warm.usage.reused_blocks, warm.usage.missed_blocks) == (cold.usage.missed_blocks, 0)
    assert warm.usage.prompt_tokens >= warm.usage.cached_tokens == warm.usage.reused_blocks * 32


async def test_a_cancel_reaches_the_engine(subject: Subject):
    """Eight streams that would run for long are closed, and the ninth request has the engine for itself at once."""
    running = [subject.engine.generate(subject.request(f"Story {number}", 1500)) for number in range(8)]
    for stream in running:
        await anext(stream)
    for stream in running:
        await stream.aclose()
    begun = time.monotonic()
    await subject.text("Open a file", 1)
    assert time.monotonic() - begun < 5


async def test_cancelling_the_reading_task_cancels_too(subject: Subject):
    """A task that is cancelled inside the stream leaves no request behind."""
    running = [asyncio.create_task(subject.text(f"Story {number}", 1500)) for number in range(8)]
    await asyncio.sleep(0.1)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    begun = time.monotonic()
    await subject.text("Open a file", 1)
    assert time.monotonic() - begun < 5


async def test_a_prompt_beyond_the_context_is_a_fatal_fault(subject: Subject):
    """No other engine of the model would take it: the client's request is invalid."""
    with pytest.raises(EngineFault) as fault:
        await subject.text("word " * (subject.prompts.context + 1))
    assert (fault.value.kind, fault.value.code) == (FaultKind.FATAL, "invalid_request")


async def test_a_simulated_engine_that_falls_silent_is_a_fault():
    """After the text so far, `continue_elsewhere` within the time a stall may last."""
    subject = Subject(SimulatorEngine(Pacing(tokens_per_s=400, stall_s=0.1)), SimulatorPrompts())
    stream = subject.engine.generate(subject.request("[[sim fault=hang@3]]"))
    with pytest.raises(EngineFault) as fault:
        [chunk async for chunk in stream]
    assert fault.value.kind is FaultKind.CONTINUE_ELSEWHERE


@pytest.fixture
def own_triton(tmp_path: Path) -> Iterator[int]:
    """gRPC port of a Triton that a test may break."""
    with component("triton", tmp_path) as ports:
        yield ports["grpc"]


@pytest.mark.real
async def test_a_dead_model_process_in_triton_is_a_fault_within_the_stall_time(own_triton: int):
    """Triton leaves the stream open and silent; the fault comes all the same, and the engine is not ready."""
    [model] = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(f"millrace_triton_{own_triton}_" in part for part in process.info["cmdline"] or ())
        and process.info["cmdline"][0].endswith("triton_python_backend_stub")
    ]
    async with TritonEngine(
        f"127.0.0.1:{own_triton}", "tiny", AssetsPrompts(TINY), between_tokens_s=SILENCE_S
    ) as engine:
        subject = Subject(engine, AssetsPrompts(TINY))
        async with contextlib.aclosing(engine.generate(subject.request("Open a file", 1500))) as stream:
            await anext(stream)
            model.kill()
            killed = time.monotonic()
            with pytest.raises(EngineFault) as fault:
                [chunk async for chunk in stream]
        assert fault.value.kind is FaultKind.CONTINUE_ELSEWHERE
        assert time.monotonic() - killed < SILENCE_S + 5
        assert not await engine.ready()
