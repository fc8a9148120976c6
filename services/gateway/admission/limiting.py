"""May this request be admitted? The limiter decides; while it is away each gateway limits at rate / live gateways."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from millrace.limits.v1.limits_pb2 import CheckReply, CheckRequest
from services.chassis import metrics
from services.chassis.clock import now
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.gateway.core.identity import Caller
from services.gateway.core.limit_headers import limit_headers, limit_title
from services.gateway.core.submission import invalid
from services.gateway.ports import Check
from services.limits.check import request_for
from services.limits.local_limiter import LocalLimiter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What was asked of the limiter and what it said; None where the caller has no limits."""

    asked: CheckRequest | None = None
    said: CheckReply | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What is left of the limits, for transports that have headers."""
        return limit_headers(self.asked, self.said) if self.asked and self.said else {}


@dataclass(frozen=True, slots=True)
class Limited:
    """The request may not go on."""

    problem: Problem
    limits: Limits


class Limiting:
    """Asks the limiter with a budget. `gateways` says how many processes share the limits while it is away."""

    def __init__(self, check: Check, *, budget_s: float, gateways: Callable[[], int] = lambda: 1) -> None:
        self._check = check
        self._budget_s = budget_s
        self._gateways = gateways
        self._local = LocalLimiter()
        self._away = False

    async def admit(self, caller: Caller, tokens: int) -> Limits | Limited:
        """Take one request and `tokens` from the caller's limits, from all or none."""
        request = request_for(caller.tenant_record, caller.api_key, tokens)
        if not request.buckets:
            return Limits()
        reply = await self._ask(request)
        limits = Limits(request, reply)
        if reply.allowed:
            return limits
        title = limit_title(reply.refused_by)
        if not reply.HasField("retry_after"):
            bucket = next(b for b in request.buckets if b.name == reply.refused_by)
            never = (
                f"with its prompt the request costs {bucket.cost:.0f} tokens, and {title} never admits more than"
                f" {bucket.burst:.0f} at once; ask for fewer, or shorten the prompt"
            )
            return Limited(invalid("max_tokens", never), limits)
        wait = reply.retry_after.seconds + reply.retry_after.nanos / 1e9
        wait *= 1 + random.random() / 10  # noqa: S311 - so that those refused together do not come back together
        return Limited(Problem(ErrorCode.LIMITED, f"over the limit {title}", retry_after_s=round(wait, 3)), limits)

    async def _ask(self, request: CheckRequest) -> CheckReply:
        at = now()
        try:
            reply = await self._check(request, at + self._budget_s)
        except ProblemError as away:
            if not self._away:
                self._away = True
                log.warning("the rate limiter is away, limiting here at rate / gateways: %s", away)
            metrics.gateway_local_limits.inc()
            self._local.gateways = max(self._gateways(), 1)
            return self._local.check(request, at)
        if self._away:
            self._away = False
            self._local.forget()
            log.info("the rate limiter is back")
        return reply
