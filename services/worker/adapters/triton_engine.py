"""The engine in Triton Inference Server, spoken to in the `llmapi` tensors of TensorRT-LLM.

One stream per request, all on one HTTP/2 connection: cancelling a stream cancels its request and nothing else. Triton
does not say when the process behind a model is dead, the stream just stays silent; only the timers here notice.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, Self, cast

import grpc
import numpy as np
from tritonclient.grpc import InferInput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from services.chassis import clock
from services.chassis.deadline import remaining
from services.worker.core.stable_text import Contradiction, StableText
from services.worker.ports import EngineChunk, EngineFault, EngineRequest, EngineUsage, FaultKind, Prompts

OPTIONS = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # An engine that restarts is found again in well under a second; the default would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # Without this, channels to one address share a connection and its fate.
    ("grpc.use_local_subchannel_pool", 1),
]
ERRORS_AS_STATUS = {"triton_grpc_error": "true"}  # a failed request ends its stream with a gRPC status
PROBE = "probe"
# What gRPC says of a server that is not there, and Triton of a model whose process died before the request.
NOT_THERE = ("ailed to connect to", "is not healthy")


class NonsenseError(ValueError):
    """The engine answered, but not as an engine does; the message goes on after "the engine"."""


class TritonEngine:
    """One model of one Triton server; an async context manager.

    `first_token_s`: how long a request may wait for a slot and have its prompt read. `between_tokens_s`: how long a
    stream may be silent afterwards. Both in seconds; a request that exceeds one is cancelled and faulted.
    """

    def __init__(
        self,
        address: str,
        model: str,
        prompts: Prompts,
        *,
        first_token_s: float = 30.0,
        between_tokens_s: float = 5.0,
        probe_s: float = 3.0,
        tokens_per_block: int = 32,
    ) -> None:
        self._address, self._model, self._prompts = address, model, prompts
        self._first_token_s, self._between_tokens_s, self._probe_s = first_token_s, between_tokens_s, probe_s
        self._tokens_per_block = tokens_per_block

    async def __aenter__(self) -> Self:
        self._client = InferenceServerClient(self._address, channel_args=OPTIONS)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.close()

    async def ready(self) -> bool:
        """Does the model's own process answer? Asks it to cancel a request that does not exist."""
        inputs = [_texts("text_input", ""), _scalar("stop", "BOOL", True)]
        stream = self._stream(PROBE, inputs, self._probe_s, headers=None)
        try:
            async with asyncio.timeout(self._probe_s), aclosing(stream) as answers:
                async for _ in answers:
                    return False
        except InferenceServerException as error:
            return "cancelled" in error.message()
        except (TimeoutError, grpc.aio.AioRpcError):
            return False
        return False

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        """Stream the answer. Raises EngineFault."""
        text = StableText(request.stop)
        begun = False
        async with aclosing(self._answers(request)) as answers:
            try:
                async for answer in answers:
                    final = _is_final(answer)
                    piece = text.take(_text_of(answer), last=final)
                    if isinstance(piece, Contradiction):
                        raise NonsenseError(str(piece))
                    if not (final or piece.stopped):
                        yield EngineChunk(piece.text, 1)
                        begun = begun or bool(piece.text)
                        continue
                    reason = "stop" if piece.stopped else _finish_reason(answer)
                    if final:  # let the stream close by itself: the server takes a cancel at this moment for a mistake
                        with suppress(EngineFault):
                            await anext(answers, None)
                    yield EngineChunk(piece.text, 1, reason, self._usage(request, answer))
                    return
                raise NonsenseError("ended the stream without its last response")
            except NonsenseError as error:
                raise EngineFault(_after(begun), f"the engine {error}") from error

    async def _answers(self, request: EngineRequest) -> AsyncGenerator[InferResult, None]:
        """The engine's responses, or the fault that came instead."""
        begun = False
        patience = self._first_token_s
        left = remaining(request.deadline, clock.now())
        try:
            async with aclosing(self._stream(request.request_id, _inputs(request), left, ERRORS_AS_STATUS)) as answers:
                while True:
                    async with asyncio.timeout(patience):
                        answer = await anext(answers, None)
                    if answer is None:
                        return
                    yield answer
                    begun, patience = True, self._between_tokens_s
        except TimeoutError as error:
            raise EngineFault(_after(begun), f"the engine was silent for {patience:g} s") from error
        except InferenceServerException as error:
            raise EngineFault(_after(begun), f"the engine refused the request: {error.message()}") from error
        except grpc.aio.AioRpcError as error:
            raise _fault(error, begun) from error

    async def _stream(
        self, request_id: str, inputs: list[InferInput], timeout_s: float, headers: dict[str, str] | None
    ) -> AsyncGenerator[InferResult, None]:
        """One request and its responses. Leaving it early cancels the request in the engine."""

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": self._model, "inputs": inputs, "request_id": request_id}

        call = self._client.stream_infer(requests(), stream_timeout=timeout_s, headers=headers)
        failed = None
        try:
            async for result, error in call:
                if error is None:
                    yield result
                failed = failed or error
            if failed:
                raise failed
        finally:
            call.cancel()

    def _usage(self, request: EngineRequest, answer: InferResult) -> EngineUsage:
        prompt_tokens = self._prompts.count(request.prompt)
        reused = _number(answer, "kv_cache_reused_block")
        return EngineUsage(
            prompt_tokens=prompt_tokens,
            cached_tokens=min(reused * self._tokens_per_block, prompt_tokens),
            reused_blocks=reused,
            missed_blocks=_number(answer, "kv_cache_missed_block"),
        )


def _inputs(request: EngineRequest) -> list[InferInput]:
    inputs = [
        _texts("text_input", request.prompt + request.forced_prefix),
        _scalar("streaming", "BOOL", True),
        _scalar("sampling_param_exclude_input_from_output", "BOOL", True),
        _scalar("sampling_param_max_tokens", "INT32", request.max_tokens),
        _scalar("sampling_param_temperature", "FP32", request.temperature),
        _scalar("sampling_param_top_p", "FP32", request.top_p),
        _scalar("sampling_param_return_perf_metrics", "BOOL", True),
        _scalar("return_finish_reason", "BOOL", True),
    ]
    if request.seed is not None:
        inputs.append(_scalar("sampling_param_seed", "UINT64", request.seed))
    if request.stop:
        inputs.append(_texts("sampling_param_stop", *request.stop))
    return inputs


_DTYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "INT32": np.int32,
    "FP32": np.float32,
    "UINT64": np.uint64,
}


def _scalar(name: str, datatype: str, value: float) -> InferInput:
    tensor = InferInput(name, [1], datatype)
    tensor.set_data_from_numpy(np.array([value], _DTYPES[datatype]))
    return tensor


def _texts(name: str, *texts: str) -> InferInput:
    tensor = InferInput(name, [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], np.object_))
    return tensor


def _text_of(answer: InferResult) -> str:
    array = answer.as_numpy("text_output")
    if array is None or array.size != 1:
        raise NonsenseError("sent a response without text_output")
    return cast("bytes", array.item(0)).decode(errors="replace")


def _is_final(answer: InferResult) -> bool:
    return bool(answer.get_response().parameters["triton_final_response"].bool_param)


def _finish_reason(answer: InferResult) -> str:
    array = answer.as_numpy("finish_reason")
    reason = "" if array is None or array.size != 1 else cast("bytes", array.item(0)).decode(errors="replace")
    if reason not in {"stop", "length"}:
        raise NonsenseError(f"ended with finish_reason {reason!r}")
    return reason


def _number(answer: InferResult, name: str) -> int:
    """A performance figure; some servers send them as text, some not at all."""
    array = answer.as_numpy(name)
    try:
        return 0 if array is None else int(array.item(0))
    except ValueError:
        return 0


def _after(begun: bool) -> FaultKind:
    return FaultKind.CONTINUE_ELSEWHERE if begun else FaultKind.RETRY_ELSEWHERE


def _fault(error: grpc.aio.AioRpcError, begun: bool) -> EngineFault:
    message = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.INVALID_ARGUMENT:
            return EngineFault(FaultKind.FATAL, message, code="invalid_request")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return EngineFault(FaultKind.FATAL, "the deadline passed in the engine", code="expired")
        case _ if not begun and any(sign in message for sign in NOT_THERE):
            return EngineFault(FaultKind.AWAY, f"the engine is away: {message}")
        case _:
            return EngineFault(_after(begun), f"the engine failed: {message}")
