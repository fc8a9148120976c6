"""Which event loops of a stack were held, and by what, from what each service logs of it."""

import re
from pathlib import Path

from services.cli.stack.handle import Stack
from tests.support.held_loops import HELD_S

# A service that starts imports and connects, and serves nobody yet.
STARTING = re.compile(r" settings: .*?(?: started, admin on |\Z)", re.DOTALL)
STALL = re.compile(r"the event loop was held for (\d+) ms .*")


class LoopLogs:
    """The logs of a stack's processes, from now on."""

    def __init__(self, stack: Stack) -> None:
        self._folder = stack.home.log("any").parent
        self._read = {log: log.stat().st_size for log in self._logs()}

    def _logs(self) -> list[Path]:
        return sorted(self._folder.glob("*.log"))

    def stalls(self) -> list[str]:
        """Each time that a service's loop was held for longer than `HELD_S` of CPU: which service, for how long, by what."""
        return [f"{log.stem}: {stall}" for log in self._logs() for stall in stalls_in(self._news(log))]

    def _news(self, log: Path) -> str:
        known = self._read.get(log, 0)
        with log.open("rb") as file:
            file.seek(known if known <= log.stat().st_size else 0)  # a log that is too long begins anew
            return file.read().decode(errors="replace")


def stalls_in(log: str) -> list[str]:
    """What a log tells of stalls.

    >>> stalls_in("INFO router settings: a=1\\nthe event loop was held for 90 ms by f\\nINFO router started, admin on :1\\n")
    []
    >>> stalls_in("WARNING the event loop was held for 160 ms by g (f.py:1)\\nINFO router settings: a=1\\n")
    ['the event loop was held for 160 ms by g (f.py:1)']
    """
    return [stall[0] for stall in STALL.finditer(STARTING.sub("", log)) if int(stall[1]) > HELD_S * 1000]
