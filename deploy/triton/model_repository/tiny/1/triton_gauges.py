"""What TensorRT-LLM's backend tells Prometheus, by the same names, so that one dashboard serves both."""

import triton_python_backend_utils as pb_utils
from batching import Batcher
from paged_kv import PagedKv


class Gauges:
    """`nv_trt_llm_*` gauges of one model. Setting one is a message to the server, so only changes are sent."""

    def __init__(self, model: str, version: str, slots: int, cache: PagedKv, batcher: Batcher) -> None:
        self._slots, self._cache, self._batcher = slots, cache, batcher
        self._shown: dict[tuple[str, str], float] = {}
        labels = {"model": model, "version": version}
        self._families = {  # a family that is not kept takes its metrics down with it
            kind: pb_utils.MetricFamily(
                name=f"nv_trt_llm_{kind}_metrics", description=text, kind=pb_utils.MetricFamily.GAUGE
            )
            for kind, text in (
                ("kv_cache_block", "TRT LLM KV cache block metrics"),
                ("request", "TRT LLM request metrics"),
            )
        }
        self._gauges = {
            (kind, name): self._families[kind].Metric(labels={**labels, label: name})
            for kind, label, names in (
                (
                    "kv_cache_block",
                    "kv_cache_block_type",
                    ("max", "free", "used", "reused", "missed", "tokens_per", "fraction"),
                ),
                ("request", "request_type", ("active", "max", "scheduled", "context", "waiting")),
            )
            for name in names
        }
        self.show()

    def show(self) -> None:
        """Send what changed."""
        cache, batcher, used = self._cache, self._batcher, len(self._cache)
        reading, running, waiting = len(batcher.reading), len(batcher.running), len(batcher.waiting)
        values = {
            "kv_cache_block": {
                "max": cache.capacity,
                "free": cache.capacity - used,
                "used": used,
                "reused": cache.reused,
                "missed": cache.missed,
                "tokens_per": cache.block,
                "fraction": used / cache.capacity,
            },
            "request": {
                "active": reading + running + waiting,
                "max": self._slots,
                "scheduled": reading + running,
                "context": reading,
                "waiting": waiting,
            },
        }
        for kind, gauges in values.items():
            for name, value in gauges.items():
                if self._shown.get((kind, name)) != value:
                    self._gauges[kind, name].set(value)
                    self._shown[kind, name] = value
