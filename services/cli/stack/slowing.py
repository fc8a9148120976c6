"""Make processes slow without touching them: stop and continue them many times a second."""

import signal
import threading
from collections.abc import Sequence

from services.cli.stack.processes import signal_group

PERIOD_S = 0.1


def slow(pids: Sequence[int], share: float, seconds: float = float("inf"), over: threading.Event | None = None) -> None:
    """Hold processes up for `share` of each tenth of a second, until the time is over, `over` is set, or Ctrl-C; then they go on."""
    over = over or threading.Event()
    periods_left = seconds / PERIOD_S
    try:
        while periods_left > 0 and not over.is_set():
            for pid in pids:
                signal_group(pid, signal.SIGSTOP)
            over.wait(PERIOD_S * share)
            for pid in pids:
                signal_group(pid, signal.SIGCONT)
            over.wait(PERIOD_S * (1 - share))
            periods_left -= 1
    except KeyboardInterrupt:
        return
    finally:
        for pid in pids:
            signal_group(pid, signal.SIGCONT)
