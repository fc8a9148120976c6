"""The Triton side of the tiny language model: requests in, responses out, in the tensors of `llmapi`.

`execute` only reads tensors and queues; one thread owns the batcher and computes. A streaming request gets one response
per token, each with the whole text so far; the last has the final flag. A request is cancelled by the client's RPC or by
another request of the same id with `stop` true.
"""

import json
import os
import queue
import secrets
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
# The threads of BLAS are counted when numpy is loaded: the matrices are too small to share.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import triton_python_backend_utils as pb_utils
from batching import Batcher, PromptTooLongError, QueueFullError, Sequence
from lm import LanguageModel
from paged_kv import PagedKv
from sampling import Sampling
from triton_gauges import Gauges
from vocabulary import Vocabulary

CANCEL_CHECK_S = 0.05  # asking whether a client is still there is a message to the server
GAUGES_S = 0.25
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


@dataclass(eq=False)
class Request:
    """What came in, and the way back."""

    id: str
    sender: "pb_utils.InferenceResponseSender"
    sequence: Sequence
    prompt: str
    streaming: bool
    echo: bool
    perf: bool
    finish_reason: bool
    stop_reason: bool
    checked: float = 0.0


class TritonPythonModel:
    """One instance of the model, with its own weights, slots and cache."""

    def initialize(self, args):
        version = Path(args["model_repository"], args["model_version"])
        parameters = {
            key: value["string_value"] for key, value in json.loads(args["model_config"])["parameters"].items()
        }
        facts = json.loads((version.parent / "model.json").read_text(encoding="utf-8"))
        slots = int(parameters["slots"])
        with np.load(version / "weights.npz") as weights:
            model = LanguageModel(dict(weights), facts["heads"], slots, facts["context"])
        cache = PagedKv(
            int(parameters["kv_cache_blocks"]), model.layers, model.heads, model.head_size, facts["tokens_per_block"]
        )
        self._vocabulary = Vocabulary(version.parent / "tokenizer.json")
        self._batcher = Batcher(
            model,
            cache,
            self._vocabulary,
            end_token=self._vocabulary.token(facts["end_token"]),
            slots=slots,
            queue=int(parameters["queue"]),
        )
        self._gauges = Gauges(args["model_name"], args["model_version"], slots, cache, self._batcher)
        self._inbox: queue.SimpleQueue[Request | str | None] = queue.SimpleQueue()
        self._requests: dict[Sequence, Request] = {}
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            try:
                if _scalar(request, "stop", False):
                    self._inbox.put(request.request_id())
                    _fail(sender, "Request cancelled by client", pb_utils.TritonError.CANCELLED)
                else:
                    self._inbox.put(self._parse(request, sender))
            except ValueError as error:
                _fail(sender, str(error), pb_utils.TritonError.INVALID_ARG)

    def finalize(self):
        self._inbox.put(None)
        self._thread.join()

    def _parse(self, request, sender) -> Request:
        texts = _strings(request, "text_input")
        if len(texts) != 1:
            raise ValueError(f"text_input must be one text, not {len(texts)}")
        sampling = Sampling(
            temperature=float(_scalar(request, "sampling_param_temperature", 0.0)),
            top_p=float(_scalar(request, "sampling_param_top_p", 1.0)),
            seed=int(_scalar(request, "sampling_param_seed", secrets.randbits(63))),
        )
        if not 0 < sampling.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {sampling.top_p}")
        max_tokens = int(_scalar(request, "sampling_param_max_tokens", 32))
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
        sequence = Sequence(
            self._vocabulary.encode(texts[0]),
            max_tokens,
            sampling,
            tuple(stop for stop in _strings(request, "sampling_param_stop") if stop),
        )
        return Request(
            id=request.request_id(),
            sender=sender,
            sequence=sequence,
            prompt=texts[0],
            streaming=bool(_scalar(request, "streaming", False)),
            echo=not _scalar(request, "sampling_param_exclude_input_from_output", False),
            perf=bool(_scalar(request, "sampling_param_return_perf_metrics", False)),
            finish_reason=bool(_scalar(request, "return_finish_reason", False)),
            stop_reason=bool(_scalar(request, "return_stop_reason", False)),
        )

    def _run(self) -> None:
        shown = 0.0
        while self._receive():
            for sequence in self._batcher.step():
                self._answer(self._requests[sequence])
            now = time.monotonic()
            self._drop_cancelled(now)
            if now - shown >= GAUGES_S or not self._requests:
                self._gauges.show()
                shown = now

    def _receive(self) -> bool:
        """Take in what came, waiting for it when there is nothing to compute. False: the end."""
        while not self._requests or not self._inbox.empty():
            item = self._inbox.get()
            if item is None:
                return False
            if isinstance(item, str):
                for request in [request for request in self._requests.values() if request.id == item]:
                    self._cancel(request)
                continue
            try:
                self._batcher.add(item.sequence)
            except PromptTooLongError as error:
                _fail(item.sender, str(error), pb_utils.TritonError.INVALID_ARG)
            except QueueFullError as error:
                _fail(item.sender, str(error), pb_utils.TritonError.UNAVAILABLE)
            else:
                self._requests[item.sequence] = item
        return True

    def _drop_cancelled(self, now: float) -> None:
        for request in list(self._requests.values()):
            if now - request.checked >= CANCEL_CHECK_S:
                request.checked = now
                if request.sender.is_cancelled():
                    self._cancel(request)

    def _cancel(self, request: Request) -> None:
        self._batcher.remove(request.sequence)
        del self._requests[request.sequence]
        _fail(request.sender, "Request cancelled by client", pb_utils.TritonError.CANCELLED)

    def _answer(self, request: Request) -> None:
        """Send the text so far, or only the end to those who did not ask for a stream."""
        sequence = request.sequence
        if sequence.finish:
            del self._requests[sequence]
        elif not request.streaming:
            return
        text = request.prompt + sequence.text if request.echo else sequence.text
        tensors = [_texts("text_output", text)]
        if request.finish_reason:
            tensors.append(_texts("finish_reason", str(sequence.finish and sequence.finish.value)))
        if request.stop_reason:
            tensors.append(_texts("stop_reason", str(sequence.stop_reason)))
        if request.perf and sequence.finish:
            blocks = sequence.reused_blocks + sequence.missed_blocks
            tensors += [
                pb_utils.Tensor("kv_cache_reused_block", np.array([sequence.reused_blocks], np.int32)),
                pb_utils.Tensor("kv_cache_missed_block", np.array([sequence.missed_blocks], np.int32)),
                pb_utils.Tensor("kv_cache_hit_rate", np.array([sequence.reused_blocks / max(blocks, 1)], np.float32)),
                pb_utils.Tensor("arrival_time_ns", np.array([sequence.arrived], np.int64)),
                pb_utils.Tensor("first_scheduled_time_ns", np.array([sequence.scheduled], np.int64)),
                pb_utils.Tensor("first_token_time_ns", np.array([sequence.first_token], np.int64)),
                pb_utils.Tensor("last_token_time_ns", np.array([sequence.last_token], np.int64)),
            ]
        request.sender.send(pb_utils.InferenceResponse(output_tensors=tensors), flags=FINAL if sequence.finish else 0)


def _scalar(request, name: str, default):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return default
    array = tensor.as_numpy()
    if array.size != 1:
        raise ValueError(f"{name} must have one value, not {array.size}")
    return array.item(0)


def _strings(request, name: str) -> list[str]:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return [] if tensor is None else [value.decode() for value in tensor.as_numpy().ravel()]


def _texts(name: str, text: str) -> "pb_utils.Tensor":
    return pb_utils.Tensor(name, np.array([text.encode()], np.object_))


def _fail(sender, message: str, code: int) -> None:
    sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code)), flags=FINAL)
