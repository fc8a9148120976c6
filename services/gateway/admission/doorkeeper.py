"""Who comes in: API keys, single-use tickets of browsers, origins, and how many may knock."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from services.chassis.clock import now
from services.chassis.errors import ErrorCode, Problem
from services.gateway.core.identity import Caller, Directory
from services.gateway.ports import TicketStore
from services.limits.core.gcra import Limit, take
from services.tasklog.ports import RedisAwayError

TICKET_S = 30.0
AUTHENTICATE_S = 5.0
_ADDRESSES = 50_000  # remembered; full buckets are forgotten beyond it

_encode, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(tuple[str, str]).decode


class Doorkeeper:
    """Authenticates without I/O, but for tickets, which any gateway may have given out."""

    def __init__(self, directory: Callable[[], Directory], tickets: TicketStore, handshakes: Limit) -> None:
        self._directory = directory
        self._tickets = tickets
        self._handshakes = handshakes
        self._tats: dict[str, float] = {}

    def knock(self, address: str) -> Problem | None:
        """Count a connection from this address, before anything is known of it."""
        at = now()
        verdict = take(self._handshakes, self._tats.get(address, 0.0), 1.0, at)
        self._tats[address] = verdict.tat
        if len(self._tats) > _ADDRESSES:
            self._tats = {a: tat for a, tat in self._tats.items() if tat > at}
        if verdict.allowed:
            return None
        return Problem(
            ErrorCode.LIMITED,
            "too many connections from this address",
            retry_after_s=round(verdict.retry_after_s or 1, 3),
        )

    def authenticate(self, authorization: str) -> Caller | Problem:
        """The caller behind `Authorization: Bearer mr_...`."""
        scheme, _, key = authorization.partition(" ")
        if not authorization:
            return _unauthenticated("an API key is needed: Authorization: Bearer mr_...")
        if scheme.lower() != "bearer":
            return _unauthenticated("the only scheme is Bearer")
        return self._directory().caller_of(key.strip()) or _unauthenticated("the API key is not known")

    async def give_ticket(self, caller: Caller) -> str | Problem:
        """A ticket that one connection may be opened with, at any gateway, within 30 s."""
        ticket = secrets.token_urlsafe(32)
        try:
            await self._tickets.put(_digest(ticket), _encode((caller.tenant, caller.api_key)), TICKET_S)
        except RedisAwayError:
            return _away()
        return ticket

    async def take_ticket(self, ticket: str) -> Caller | Problem:
        """Who the ticket was given to. It is used up."""
        try:
            async with asyncio.timeout(AUTHENTICATE_S):
                owner = await self._tickets.take(_digest(ticket))
        except (RedisAwayError, TimeoutError):
            return _away()
        caller = self._directory().caller_named(*_decode(owner)) if owner else None
        return caller or _unauthenticated("the ticket is not known, used or too old")


def origin_allowed(origin: str, host: str, caller: Caller) -> bool:
    """May a page of this origin use the caller's key? No origin: not a browser.

    The gateway's own pages may, and the origins that the tenant names.
    """
    return not origin or urlsplit(origin).netloc == host or origin in caller.origins


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode()).digest()


def _unauthenticated(message: str) -> Problem:
    return Problem(ErrorCode.UNAUTHENTICATED, message)


def _away() -> Problem:
    return Problem(ErrorCode.UNAVAILABLE, "tickets cannot be read now", retry_after_s=1.0)
