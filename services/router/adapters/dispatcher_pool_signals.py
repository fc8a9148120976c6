"""Signals pushed by the dispatchers."""

from typing import Final

from millrace.dispatch.v1.dispatch_pb2 import PoolSignal
from services.pools.signals_listener import SignalsListener

# An owner speaks at least twice a second. After this its pool has no owner, or one that is cut off: nothing is known.
STALE_S: Final = 2.0


class DispatcherPoolSignals:
    """The last signal of each pool while it is fresh."""

    def __init__(self, listener: SignalsListener) -> None:
        self._listener = listener

    def latest(self, pool: str) -> PoolSignal | None:
        """See ports."""
        return self._listener.signals.get(pool) if self._listener.age_s(pool) <= STALE_S else None
