"""The Triton adapter against a server that misbehaves on order."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.worker.adapters.simulator_engine import SimulatorPrompts
from services.worker.adapters.triton_engine import TritonEngine
from services.worker.ports import EngineChunk, EngineFault, EngineRequest, EngineUsage, FaultKind

Response = service_pb2.ModelStreamInferResponse
Script = Callable[[service_pb2.ModelInferRequest, grpc.aio.ServicerContext], AsyncIterator[Response]]


def response(text: str | None, *, reason: str = "None", final: bool = False, reused: bytes | None = None) -> Response:
    """One answer of the model, in the tensors of `llmapi`."""
    answer = Response()
    infer = answer.infer_response
    infer.parameters["triton_final_response"].bool_param = final
    tensors = {"text_output": text, "finish_reason": reason}
    for name, value in tensors.items():
        if value is not None:
            infer.outputs.add(name=name, datatype="BYTES", shape=[1])
            infer.raw_output_contents.append(len(value.encode()).to_bytes(4, "little") + value.encode())
    if reused is not None:  # as text, the way some servers send it
        infer.outputs.add(name="kv_cache_reused_block", datatype="BYTES", shape=[1])
        infer.raw_output_contents.append(len(reused).to_bytes(4, "little") + reused)
    return answer


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Plays a script for every request and remembers what it was asked and whether it was cancelled."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[service_pb2.ModelInferRequest] = []
        self.cancelled = asyncio.Event()

    async def ModelStreamInfer(
        self, requests: AsyncIterator[service_pb2.ModelInferRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Response]:
        async for request in requests:
            self.requests.append(request)
            try:
                async for answer in self.script(request, context):
                    yield answer
            except asyncio.CancelledError:
                self.cancelled.set()
                raise


@asynccontextmanager
async def engine(script: Script, **settings: float) -> AsyncIterator[tuple[TritonEngine, Server]]:
    server, servicer = grpc.aio.server(), Server(script)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    patience = {"first_token_s": 5.0, "between_tokens_s": 5.0, "probe_s": 1.0, **settings}
    try:
        async with TritonEngine(f"127.0.0.1:{port}", "tiny", SimulatorPrompts(), **patience) as subject:
            yield subject, servicer
    finally:
        await server.stop(0)


def request(**rest: object) -> EngineRequest:
    return EngineRequest(request_id="r1", prompt="a b c", max_tokens=8, deadline=time.time() + 30, **rest)  # type: ignore[arg-type]


def plays(*answers: Response, then: Callable[[grpc.aio.ServicerContext], Awaitable[object]] | None = None) -> Script:
    async def script(_: service_pb2.ModelInferRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[Response]:
        for answer in answers:
            yield answer
        if then:
            await then(context)

    return script


def aborts(code: grpc.StatusCode, message: str = "") -> Callable[[grpc.aio.ServicerContext], Awaitable[object]]:
    return lambda context: context.abort(code, message)


def silence(_: object) -> Awaitable[object]:
    return asyncio.sleep(30)


async def fault_of(script: Script, **settings: float) -> tuple[EngineFault, list[EngineChunk]]:
    """The fault that a script ends in, and the chunks before it."""
    chunks: list[EngineChunk] = []

    async def read(subject: TritonEngine) -> None:
        async for chunk in subject.generate(request()):
            chunks.append(chunk)  # noqa: PERF401  (a comprehension would lose them to the fault)

    async with engine(script, **settings) as (subject, _):
        with pytest.raises(EngineFault) as fault:
            await read(subject)
    return fault.value, chunks


async def test_a_whole_answer_comes_through():
    """New text per response, one token each, usage at the end, figures that come as text understood."""
    script = plays(response("caf\ufffd"), response("café"), response("café!", reason="length", final=True, reused=b"2"))
    async with engine(script) as (subject, server):
        chunks = [chunk async for chunk in subject.generate(request(seed=3, stop=("x",), forced_prefix=" d"))]
    usage = EngineUsage(prompt_tokens=3, cached_tokens=3, reused_blocks=2, missed_blocks=0)
    assert chunks == [EngineChunk("caf", 1), EngineChunk("é", 1), EngineChunk("!", 1, "length", usage)]
    [asked] = server.requests
    assert (asked.id, asked.model_name) == ("r1", "tiny")
    assert b"a b c d" in asked.raw_input_contents[0]
    assert {"sampling_param_seed", "sampling_param_stop"} <= {tensor.name for tensor in asked.inputs}


async def test_a_stop_string_ends_the_text_although_the_engine_goes_on():
    """The adapter cuts the text, ends with reason `stop` and cancels the request."""
    async with engine(plays(response("one "), response("one END two"), then=silence)) as (subject, server):
        chunks = [chunk async for chunk in subject.generate(request(stop=("END",)))]
        await asyncio.wait_for(server.cancelled.wait(), 2)
    assert [(chunk.text, chunk.finish_reason) for chunk in chunks] == [("one ", None), ("", "stop")]


async def test_text_that_is_taken_back_is_a_fault():
    """What was given out stays; another worker goes on from it."""
    fault, chunks = await fault_of(plays(response("the mill"), response("the pond")))
    assert (fault.kind, [chunk.text for chunk in chunks]) == (FaultKind.CONTINUE_ELSEWHERE, ["the mill"])
    assert "took text back" in fault.message


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([response(None)], "without text_output"),
        ([response("a"), response("a", reason="lost", final=True)], "finish_reason 'lost'"),
        ([response("a")], "without its last response"),
        ([], "without its last response"),
    ],
)
async def test_nonsense_is_a_fault(answers: list[Response], message: str):
    """A missing tensor, an unknown reason or a stream that just ends: said in the fault, never an answer."""
    fault, chunks = await fault_of(plays(*answers))
    assert message in fault.message
    assert fault.kind is not FaultKind.FATAL
    assert not any(chunk.finish_reason for chunk in chunks)


async def test_silence_before_the_first_token_may_be_retried_elsewhere():
    """The first timer covers queue and prefill; nothing was given out."""
    fault, chunks = await fault_of(plays(then=silence), first_token_s=0.1)
    assert (fault.kind, chunks) == (FaultKind.RETRY_ELSEWHERE, [])


async def test_silence_between_tokens_is_continued_elsewhere():
    """The second timer starts with the first token, and the silent request is cancelled."""
    async with engine(plays(response("a"), then=silence), between_tokens_s=0.1) as (subject, server):
        with pytest.raises(EngineFault, match=r"silent for 0\.1 s") as fault:
            [chunk async for chunk in subject.generate(request())]
        await asyncio.wait_for(server.cancelled.wait(), 2)
    assert fault.value.kind is FaultKind.CONTINUE_ELSEWHERE


async def test_an_engine_that_refuses_is_retried_elsewhere_and_a_bad_request_is_not():
    """UNAVAILABLE is the engine's trouble, INVALID_ARGUMENT the request's."""
    full, _ = await fault_of(plays(then=aborts(grpc.StatusCode.UNAVAILABLE, "queue is full")))
    assert (full.kind, full.message) == (FaultKind.RETRY_ELSEWHERE, "the engine failed: queue is full")
    bad, _ = await fault_of(plays(then=aborts(grpc.StatusCode.INVALID_ARGUMENT, "too long")))
    assert (bad.kind, bad.code, bad.message) == (FaultKind.FATAL, "invalid_request", "too long")


async def test_an_engine_that_breaks_off_is_continued_elsewhere():
    """An error after the first text."""
    fault, chunks = await fault_of(plays(response("a"), then=aborts(grpc.StatusCode.INTERNAL, "stub is not healthy")))
    assert (fault.kind, len(chunks)) == (FaultKind.CONTINUE_ELSEWHERE, 1)


async def test_nobody_at_the_address_is_an_engine_that_is_away():
    """A server that is gone refuses at once, and is not ready: no failure of the request."""
    async with TritonEngine("127.0.0.1:1", "tiny", SimulatorPrompts(), probe_s=1) as subject:
        assert not await subject.ready()
        with pytest.raises(EngineFault) as fault:
            [chunk async for chunk in subject.generate(request())]
    assert fault.value.kind is FaultKind.AWAY


async def test_closing_the_stream_cancels_the_request():
    """The server sees the cancel of a stream that is left."""
    async with engine(plays(response("a"), then=silence)) as (subject, server):
        stream = subject.generate(request())
        await anext(stream)
        await stream.aclose()
        await asyncio.wait_for(server.cancelled.wait(), 2)


async def test_readiness_asks_the_model_itself():
    """Ready is who answers the probe as cancelled; a silent or broken model is not."""
    cancelled = Response(error_message="Request cancelled by client")
    broken = Response(error_message="Stub process 'tiny_0_0' is not healthy.")
    cases = ((plays(cancelled), 5.0, True), (plays(broken), 5.0, False), (plays(then=silence), 0.2, False))
    for script, probe_s, ready in cases:
        async with engine(script, probe_s=probe_s) as (subject, server):
            assert await subject.ready() is ready
            assert any(tensor.name == "stop" for tensor in server.requests[0].inputs)
