"""What a request carries: who asks, its body, its headers."""

import functools
from collections.abc import Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from services.chassis.errors import ProblemError, unwrap
from services.gateway.admission.doorkeeper import Doorkeeper
from services.gateway.core.identity import Caller
from services.gateway.core.submission import MAX_TASK_BYTES, Name, decoded, invalid

T = TypeVar("T")

MAX_BODY = MAX_TASK_BYTES + 64 * 1024

_convert_name = functools.partial(msgspec.convert, type=Name)


def caller_of(request: web.Request, doorkeeper: Doorkeeper) -> Caller:
    """Who asks. Raises ProblemError."""
    return unwrap(doorkeeper.authenticate(request.headers.get("Authorization", "")))


def knock(request: web.Request, doorkeeper: Doorkeeper) -> None:
    """Count a handshake. Raises ProblemError when the address has too many."""
    problem = doorkeeper.knock(request.remote or "")
    if problem is not None:
        raise ProblemError(problem)


async def body_of(request: web.Request, decode: Callable[[bytes], T]) -> T:
    """The body. Raises ProblemError that names field and rule."""
    return unwrap(decoded(decode, await request.read()))


def idempotency_key(request: web.Request) -> str | None:
    """The header `Idempotency-Key`. Raises ProblemError for one that cannot be a key."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    try:
        return str(_convert_name(key.strip('"')))
    except msgspec.ValidationError as wrong:
        raise ProblemError(invalid("Idempotency-Key", str(wrong))) from None


def traceparent(request: web.Request) -> str:
    """W3C trace context as it came."""
    return request.headers.get("traceparent", "")[:64]
