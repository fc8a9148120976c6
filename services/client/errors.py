"""What can go wrong, one class per code of the errors table."""


class MillraceError(Exception):
    """A refusal. `code` is its name in the errors table; `retry_after_s` is when the gateway would try again."""

    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        retryable: bool = False,
        retry_after_s: float | None = None,
        field: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.message = message
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.field = field

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class UnauthenticatedError(MillraceError):
    """The API key is missing or unknown."""

    code = "unauthenticated"


class ForbiddenError(MillraceError):
    """The tenant may not use that model."""

    code = "forbidden"


class InvalidRequestError(MillraceError):
    """`field` breaks the rule that the message names."""

    code = "invalid_request"


class UnknownModelError(MillraceError):
    """There is no such model."""

    code = "unknown_model"


class UnknownTaskError(MillraceError):
    """There is no such task, or it is another tenant's."""

    code = "unknown_task"


class IdempotencyConflictError(MillraceError):
    """The key was used for another request."""

    code = "idempotency_conflict"


class TooLargeError(MillraceError):
    """The request is larger than a task may be."""

    code = "too_large"


class LimitedError(MillraceError):
    """A rate limit; try again after `retry_after_s`."""

    code = "limited"


class ShedError(MillraceError):
    """Too much work waits; try again after `retry_after_s`."""

    code = "shed"


class UnavailableError(MillraceError):
    """No gateway, or a service behind it, answers. The same key finds out whether the task exists."""

    code = "unavailable"


class GoneError(MillraceError):
    """The answer's retention is over."""

    code = "gone"


class TaskEndedError(MillraceError):
    """A task ended without a whole answer; `text` is what there is."""

    code = "engine_failed"

    def __init__(self, message: str, *, code: str, task: str, text: str, retryable: bool) -> None:
        super().__init__(message, code=code, retryable=retryable)
        self.task = task
        self.text = text


class LostError(ConnectionError):
    """A connection broke or could not be made. The client goes on from its cursor; users never see this one."""

    def __init__(self, message: str, reconnect_in_s: float | None = None) -> None:
        super().__init__(message)
        self.reconnect_in_s = reconnect_in_s


_CLASSES: dict[str, type[MillraceError]] = {
    kind.code: kind
    for kind in (
        UnauthenticatedError,
        ForbiddenError,
        InvalidRequestError,
        UnknownModelError,
        UnknownTaskError,
        IdempotencyConflictError,
        TooLargeError,
        LimitedError,
        ShedError,
        UnavailableError,
        GoneError,
    )
}


def refusal(
    code: str, message: str, *, retryable: bool = False, retry_after_s: float | None = None, field: str = ""
) -> MillraceError:
    """The error of a code; codes that this version does not know are a plain MillraceError."""
    kind = _CLASSES.get(code, MillraceError)
    return kind(message, code=code, retryable=retryable, retry_after_s=retry_after_s, field=field)
