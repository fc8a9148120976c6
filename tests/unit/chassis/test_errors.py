"""The errors table is complete and consistent."""

from services.chassis.errors import ERRORS, ErrorCode, Problem


def test_every_code_has_a_row():
    """A code without a row could not be told to a client."""
    assert set(ERRORS) == set(ErrorCode)


def test_what_may_be_retried_is_never_a_client_error_except_limits():
    """Retryable means: the same request may succeed later. A 4xx says it will not, 429 aside."""
    wrong = [c for c, row in ERRORS.items() if row.retryable and row.http < 500 and row.http != 429]
    assert wrong == []


def test_a_problem_reads_as_a_sentence():
    """Logs and messages show code, reason and field."""
    assert str(Problem(ErrorCode.INVALID_REQUEST, "must be at least 1", field="max_tokens")) == (
        "invalid_request: must be at least 1 (field max_tokens)"
    )
