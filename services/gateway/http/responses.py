"""How answers look over HTTP. Errors have one shape on every route (core/openai.py)."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from aiohttp import web

from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.gateway.core import messages as m
from services.gateway.core.openai import error_body
from services.gateway.http.requests import MAX_BODY
from services.gateway.incident import internal


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=m.encode(value), status=status, headers=headers, content_type="application/json")


def problem_response(problem: Problem, headers: Mapping[str, str] = MappingProxyType({})) -> web.Response:
    """A refusal, with what clients need to act on it in headers."""
    answer = dict(headers)
    if problem.retry_after_s is not None:
        answer["Retry-After"] = str(max(math.ceil(problem.retry_after_s), 1))
        answer["retry-after-ms"] = str(math.ceil(problem.retry_after_s * 1000))  # read by OpenAI's clients
    if problem.code is ErrorCode.UNAUTHENTICATED:
        answer["WWW-Authenticate"] = "Bearer"
    answer["x-should-retry"] = "true" if problem.row.retryable else "false"  # as above
    return web.Response(
        body=error_body(problem), status=problem.row.http, headers=answer, content_type="application/json"
    )


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every error in one shape."""
    try:
        return await handler(request)
    except ProblemError as refused:
        return problem_response(refused.problem)
    except web.HTTPRequestEntityTooLarge:
        return problem_response(Problem(ErrorCode.TOO_LARGE, f"the body has more than {MAX_BODY} bytes"))
    except web.HTTPException as plain:
        if plain.status < 400:
            raise
        response = problem_response(
            Problem(ErrorCode.INVALID_REQUEST, f"{request.method} {request.path}: {plain.reason}")
        )
        response.set_status(plain.status)
        return response
    except (asyncio.CancelledError, ConnectionResetError):
        raise  # the client is gone
    except Exception as bug:  # noqa: BLE001 - the client gets an id to quote
        return problem_response(internal(bug))
