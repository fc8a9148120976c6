"""The errors of Millrace: one table, the same names on all transports.

A core returns a `Problem` as a value. `ProblemError` carries one where a value cannot be returned; each transport maps the
row of its code and never invents a status of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from grpc import StatusCode

T = TypeVar("T")


class ErrorCode(StrEnum):
    """The names clients see."""

    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_MODEL = "unknown_model"
    UNKNOWN_TASK = "unknown_task"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    TOO_LARGE = "too_large"
    LIMITED = "limited"
    SHED = "shed"
    UNAVAILABLE = "unavailable"
    GONE = "gone"
    EXPIRED = "expired"
    ENGINE_FAILED = "engine_failed"
    CANCELLED = "cancelled"
    RESTARTED = "restarted"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How one code looks on each transport.

    `close` is the WebSocket close code where the error ends the connection, None where the connection stays.
    """

    http: int
    grpc: StatusCode
    close: int | None
    retryable: bool


ERRORS: Final[Mapping[ErrorCode, ErrorRow]] = {
    ErrorCode.UNAUTHENTICATED: ErrorRow(401, StatusCode.UNAUTHENTICATED, 4401, retryable=False),
    ErrorCode.FORBIDDEN: ErrorRow(403, StatusCode.PERMISSION_DENIED, None, retryable=False),
    ErrorCode.INVALID_REQUEST: ErrorRow(400, StatusCode.INVALID_ARGUMENT, None, retryable=False),
    ErrorCode.UNKNOWN_MODEL: ErrorRow(404, StatusCode.NOT_FOUND, None, retryable=False),
    ErrorCode.UNKNOWN_TASK: ErrorRow(404, StatusCode.NOT_FOUND, None, retryable=False),
    ErrorCode.IDEMPOTENCY_CONFLICT: ErrorRow(409, StatusCode.ALREADY_EXISTS, None, retryable=False),
    ErrorCode.TOO_LARGE: ErrorRow(413, StatusCode.INVALID_ARGUMENT, None, retryable=False),
    ErrorCode.LIMITED: ErrorRow(429, StatusCode.RESOURCE_EXHAUSTED, None, retryable=True),
    ErrorCode.SHED: ErrorRow(503, StatusCode.UNAVAILABLE, None, retryable=True),
    ErrorCode.UNAVAILABLE: ErrorRow(503, StatusCode.UNAVAILABLE, None, retryable=True),
    ErrorCode.GONE: ErrorRow(410, StatusCode.NOT_FOUND, None, retryable=False),
    ErrorCode.EXPIRED: ErrorRow(504, StatusCode.DEADLINE_EXCEEDED, None, retryable=False),
    ErrorCode.ENGINE_FAILED: ErrorRow(502, StatusCode.INTERNAL, None, retryable=True),
    ErrorCode.CANCELLED: ErrorRow(499, StatusCode.CANCELLED, None, retryable=False),
    # Only where a protocol cannot say `restarted` (OpenAI streams): the text so far was lost, ask again.
    ErrorCode.RESTARTED: ErrorRow(503, StatusCode.ABORTED, None, retryable=True),
    ErrorCode.INTERNAL: ErrorRow(500, StatusCode.INTERNAL, None, retryable=False),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """An expected "no": what, why in one sentence, which field, when to try again (seconds)."""

    code: ErrorCode
    message: str
    field: str = ""
    retry_after_s: float | None = None

    @property
    def row(self) -> ErrorRow:
        """The code's row in the table."""
        return ERRORS[self.code]

    def __str__(self) -> str:
        where = f" (field {self.field})" if self.field else ""
        return f"{self.code}: {self.message}{where}"


class ProblemError(Exception):
    """A problem that travels as an exception."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def unwrap(result: T | Problem) -> T:
    """The result. Raises ProblemError if it is a problem, for whoever answers in the caller's transport."""
    if isinstance(result, Problem):
        raise ProblemError(result)
    return result
