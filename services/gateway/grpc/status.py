"""How a problem ends a gRPC call: ErrorInfo (reason = our code) and, when it helps, BadRequest and RetryInfo."""

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, NoReturn, TypeVar

import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus

from services.chassis.errors import Problem, ProblemError
from services.gateway.incident import internal

DOMAIN = "millrace.dev"
T = TypeVar("T")


async def answered(context: Any, work: Awaitable[T]) -> T:
    """The result, or the call ends with the problem's status."""
    try:
        return await work
    except ProblemError as refused:
        await abort(context, refused.problem)
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except Exception as bug:  # noqa: BLE001 - the client gets an id to quote
        await abort(context, internal(bug))


async def abort(context: Any, problem: Problem) -> NoReturn:
    """End the call with the problem's row in the table of errors."""
    row = problem.row
    details: list[AnyMessage] = [_packed(ErrorInfo(reason=problem.code.value, domain=DOMAIN))]
    trailing: list[tuple[str, str | bytes]] = []
    if problem.field:
        violation = BadRequest.FieldViolation(field=problem.field, description=problem.message)
        details.append(_packed(BadRequest(field_violations=[violation])))
    if problem.retry_after_s is not None and row.retryable:
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(math.ceil(problem.retry_after_s * 1000))
        details.append(_packed(retry))
        trailing.append(("grpc-retry-pushback-ms", str(math.ceil(problem.retry_after_s * 1000))))
    status = RpcStatus(code=row.grpc.value[0], message=problem.message, details=details)
    trailing.append(("grpc-status-details-bin", status.SerializeToString()))
    await context.abort(row.grpc, problem.message, tuple(trailing))
    raise AssertionError


def _packed(message: Any) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
