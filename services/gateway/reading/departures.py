"""Readers that went away: what becomes of their task.

The gateway that accepted a task keeps its disconnect policy and answers for it until the task ended, also while somebody
reads it elsewhere. Only what a living gateway sees is acted upon: a gateway that leaves closes its clients' connections itself,
and their tasks go on.
"""

import asyncio
import logging
from dataclasses import dataclass

from services.chassis.background import Background
from services.chassis.clock import now
from services.gateway.ports import Presence, Signals
from services.gateway.reading.readers import Readers
from services.tasklog.core.entries import Terminal
from services.tasklog.ports import RedisAwayError, TokenLog

log = logging.getLogger(__name__)

WISH_S = 86_400.0  # a wish to cancel outlives every deadline
RETRY_S = 1.0
_PURGE_AT = 10_000


@dataclass(frozen=True, slots=True)
class _Policy:
    pool: str
    after_s: float
    deadline: float


class Departures:
    """Policies of the tasks that this gateway accepted; `keep` needs none."""

    def __init__(self, readers: Readers, token_log: TokenLog, presence: Presence, signals: Signals) -> None:
        self._readers = readers
        self._log = token_log
        self._presence = presence
        self._signals = signals
        self._policies: dict[str, _Policy] = {}
        self._purge_at = _PURGE_AT
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._work = Background()
        self.leaving = False
        readers.on_ended = self.ended

    def remember(self, task: str, pool: str, policy: str | float, deadline: float) -> None:
        """The task was accepted here: `keep`, `cancel`, or cancelled after so many seconds. `deadline` in Unix seconds."""
        if policy == "keep":
            return
        self._policies[task] = _Policy(pool, 0.0 if policy == "cancel" else float(policy), deadline)
        if len(self._policies) > self._purge_at:  # tasks that nobody here read to the end
            self._policies = {t: p for t, p in self._policies.items() if p.deadline > now()}
            self._purge_at = max(_PURGE_AT, 2 * len(self._policies))

    def ended(self, task: str) -> None:
        """A reader here saw its end."""
        self._policies.pop(task, None)
        if timer := self._timers.pop(task, None):
            timer.cancel()

    def left(self, task: str) -> None:
        """A reader here went away before the end."""
        policy = self._policies.get(task)
        if policy is None or self.leaving or task in self._timers or self._readers.of(task):
            return
        if policy.after_s:
            self._look_in(task, policy.after_s)
        else:
            self._work.spawn(self._cancel(task, policy.pool))

    async def cancel(self, task: str, pool: str) -> None:
        """Cancel: the truth to Redis, then the hint to the pool's owner. Raises RedisAwayError."""
        await self._log.wish_cancel(task, WISH_S)
        self._signals.cancel(pool, task)

    def _look_in(self, task: str, seconds: float) -> None:
        self._timers[task] = asyncio.get_running_loop().call_later(seconds, self._due, task)

    def _due(self, task: str) -> None:
        self._timers.pop(task, None)
        policy = self._policies.get(task)
        if policy is not None and not self.leaving:
            self._work.spawn(self._decide(task, policy))

    async def _decide(self, task: str, policy: _Policy) -> None:
        """Nobody reads it, here or elsewhere: cancel. Somebody does: look again. It ended: forget it."""
        try:
            if not self._readers.of(task) and not await self._presence.readers(task):
                await self._cancel(task, policy.pool)
            elif any(isinstance(entry, Terminal) for entry in await self._log.read(task)):
                self.ended(task)
            else:
                self._look_in(task, policy.after_s or RETRY_S)
        except RedisAwayError:
            self._look_in(task, RETRY_S)

    async def _cancel(self, task: str, pool: str) -> None:
        try:
            await self.cancel(task, pool)
        except RedisAwayError:
            self._look_in(task, RETRY_S)
        else:
            self._policies.pop(task, None)
