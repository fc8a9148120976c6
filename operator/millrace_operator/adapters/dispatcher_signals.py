"""Signals pushed by the dispatchers."""

from millrace_operator.ports import Signal
from services.pools.signals_listener import SignalsListener


class DispatcherSignals:
    """`Signals` on an open listener."""

    def __init__(self, listener: SignalsListener) -> None:
        self._listener = listener

    def latest(self, pool: str) -> Signal | None:
        """The last word about a pool; None: there was none."""
        said = self._listener.signals.get(pool)
        if said is None:
            return None
        return Signal(
            age_s=self._listener.age_s(pool),
            epoch=self._listener.epochs.get(pool, 0),
            waiting=said.waiting,
            work_s=sum(each.work_s for each in said.classes),
            busy=said.busy_slots,
            service_s=said.service_s,
            arrived=said.arrived,
            ended=said.ended,
            dead=said.dead,
            last_dead_at=said.last_dead_at.ToNanoseconds() / 1e9 if said.dead else float("-inf"),
        )
