"""The token log in memory, for tests: the same answers as Redis, and its bad days on request."""

import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from millrace.task.v1.task_pb2 import Route
from services.chassis.resp import RedisAwayError, RunChangedError
from services.tasklog.adapters.memory_keys import ExpiringKeys
from services.tasklog.core.beginning import begin_from
from services.tasklog.core.entries import (
    TERMINAL_SEQUENCE,
    AppendResult,
    Begin,
    Delta,
    Entry,
    Fenced,
    Header,
    Lost,
    Terminal,
    Written,
)

_UNDO_LIMIT: Final = 100_000  # the newest writes, which `forget` can reach


async def _at_once() -> None:
    """No other client comes in between."""


class MemoryTokenLog:
    """`TokenLog` in dictionaries.

    `clock` gives seconds, as `time.monotonic`. `between` is awaited wherever Redis may serve other clients between two
    commands of one call; a test that interleaves clients passes its own. With `away` = True it behaves as Redis that does
    not answer.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, between: Callable[[], Awaitable[None]] = _at_once
    ) -> None:
        self._clock = clock
        self._between = between
        self._runs = itertools.count(1)
        self._logs: ExpiringKeys[list[Entry]] = ExpiringKeys(clock)
        self._routes: ExpiringKeys[dict[tuple[str, int], Route]] = ExpiringKeys(clock)
        self._wishes: ExpiringKeys[set[str]] = ExpiringKeys(clock)
        self._undo: deque[tuple[float, Callable[[], object]]] = deque(maxlen=_UNDO_LIMIT)
        self.away = False
        self.run_id = ""
        self.restart()

    # -- bad days -----------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Redis stops and starts again: another run id, nothing forgotten."""
        self.run_id = f"memory-run-{next(self._runs)}"

    def forget(self, *, seconds: float = 0.0, entries: int = 0) -> None:
        """Redis restarts without its newest writes: those of the last `seconds`, and the last `entries` of any kind."""
        since = self._clock() - seconds
        while self._undo and (entries > 0 or self._undo[-1][0] > since):
            self._undo.pop()[1]()
            entries -= 1
        self.restart()

    # -- the port -----------------------------------------------------------------------------------------------------

    async def begin(self, task: str, header: Header, keep_s: float) -> Begin | Fenced:
        """Fence first, then read."""
        self._check(header.run_id)
        log = self._logs.setdefault(task, [])
        fenced = not self._add(task, log, header) and header not in log
        self._logs.keep_at_least(task, keep_s)
        await self._between()
        self._check(header.run_id)  # one connection carries both: it does not outlive the run
        if fenced:
            return Fenced()
        below = [entry for entry in await self.read(task) if _place(entry) < (header.attempt, 0)]
        return begin_from(below, header.run_id)

    async def append(self, run_id: str, entries: Sequence[tuple[str, Delta | Terminal]]) -> list[AppendResult]:
        """The entries of each task, then who reads it and whether its cancel is wished."""
        self._check(run_id)
        outcomes: list[AppendResult | None] = []
        for task, entry in entries:
            log = self._logs.get(task)
            if not log:
                outcomes.append(Lost())
            elif self._add(task, log, entry):
                outcomes.append(None)
            else:
                attempt, sequence = _place(log[-1])
                mine = attempt == entry.attempt and sequence >= _place(entry)[1]
                outcomes.append(None if mine else Fenced())
        await self._between()
        self._check(run_id)
        return [outcome or self._written(task) for outcome, (task, _) in zip(outcomes, entries, strict=True)]

    async def rewrite(self, run_id: str, task: str, whole: Delta, terminal: Terminal | None) -> AppendResult:
        """The text as one entry, together with its terminal."""
        entries = [(task, entry) for entry in (whole if whole.end else None, terminal) if entry]
        return (await self.append(run_id, entries))[-1]

    async def read(self, task: str, after: tuple[int, int] | None = None) -> list[Entry]:
        """Entries above the id `after`, or all."""
        self._check()
        return [entry for entry in self._logs.get(task) or () if after is None or _place(entry) > after]

    async def attach(self, task: str, route: Route, keep_s: float) -> None:
        """Write a reader's route."""
        self._check()
        readers = self._routes.setdefault(task, {})
        reader = route.address, route.boot
        before = readers.get(reader)
        readers[reader] = Route(address=route.address, boot=route.boot, handle=route.handle)
        self._remember(lambda: readers.__setitem__(reader, before) if before else readers.pop(reader, None))
        self._routes.keep_at_least(task, keep_s)

    async def detach(self, task: str, route: Route) -> None:
        """Remove a reader's route."""
        self._check()
        readers = self._routes.get(task) or {}
        reader = route.address, route.boot
        if before := readers.pop(reader, None):
            self._remember(lambda: readers.__setitem__(reader, before))

    async def expire(self, task: str, keep_s: float) -> None:
        """Keep log, routes and wishes for exactly `keep_s` seconds from now."""
        self._check()
        self._logs.keep(task, keep_s)
        self._routes.keep(task, keep_s)
        self._wishes.keep(task, keep_s)

    async def wish_cancel(self, task: str, keep_s: float) -> None:
        """Write the wish to cancel."""
        self._check()
        wishes = self._wishes.setdefault(task, set())
        if "cancel" not in wishes:
            wishes.add("cancel")
            self._remember(lambda: wishes.discard("cancel"))
        self._wishes.keep_at_least(task, keep_s)

    async def cancel_wished(self, task: str) -> bool:
        """Was the task's cancel wished?"""
        self._check()
        return bool(self._wishes.get(task))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _check(self, run_id: str | None = None) -> None:
        if self.away:
            raise RedisAwayError("the token log in memory is away")
        if run_id is not None and run_id != self.run_id:
            raise RunChangedError(f"the token log in memory is in {self.run_id}, not in {run_id}")

    def _add(self, task: str, log: list[Entry], entry: Entry) -> bool:
        """Redis refuses an id that is not above the last one."""
        if log and _place(entry) <= _place(log[-1]):
            return False
        log.append(entry)
        self._remember(log.pop)
        return True

    def _remember(self, undo: Callable[[], object]) -> None:
        self._undo.append((self._clock(), undo))

    def _written(self, task: str) -> Written:
        return Written(tuple((self._routes.get(task) or {}).values()), bool(self._wishes.get(task)))


def _place(entry: Entry) -> tuple[int, int]:
    match entry:
        case Header(attempt):
            return attempt, 0
        case Delta(attempt, _, _, end):
            return attempt, end
        case Terminal(attempt):
            return attempt, TERMINAL_SEQUENCE
