"""Signals set by a test."""

from millrace.dispatch.v1.dispatch_pb2 import PoolSignal


class MemoryPoolSignals(dict[str, PoolSignal]):
    """A dictionary from pool to signal."""

    def latest(self, pool: str) -> PoolSignal | None:
        """See ports."""
        return self.get(pool)
