"""The objects of `millrace.v1`, to the byte."""

import msgspec
import pytest

from millrace.task.v1.task_pb2 import CACHE_MARK_EXACT, OUTCOME_KIND_FAILED, Outcome
from services.chassis.errors import ErrorCode, Problem
from services.gateway.core import messages as m


@pytest.mark.parametrize("text", ["plain", 'quo"te', "line\nbreak", "ü ✓ 🎉", "\x00\x1f", "back\\slash", ""])
def test_a_fast_delta_is_the_slow_one(text: str) -> None:
    """The concatenated delta is what the encoder writes."""
    slow = m.encode(m.Delta(task="t", gen="g1", offset=7, text=text))
    assert m.delta(m.delta_prefix("t", "g1"), 7, text) == slow


def test_the_kind_comes_first() -> None:
    """`t` is the first field of every object, so that a reader knows what follows."""
    for message in (m.Pong(), m.Gone(task="x", code="unknown"), m.Ack(key="k", task="t", state="queued")):
        assert m.encode(message).startswith(b'{"t":"')


def test_a_failed_end_says_why() -> None:
    """The terminal fields of an end without an answer, from the table's row."""
    outcome = Outcome(
        kind=OUTCOME_KIND_FAILED, finish_reason="error", error_code="engine_failed", error_message="3 tries"
    )
    end = msgspec.to_builtins(m.done("t", "g", 3, outcome))
    assert end["outcome"] == "failed"
    assert end["error"] == {"code": "engine_failed", "message": "3 tries", "retryable": True}


def test_an_unknown_code_counts_as_a_bug() -> None:
    """A newer service may name a code that this gateway does not know."""
    assert m.code_named("from_the_future") is ErrorCode.INTERNAL
    error = m.task_error(Outcome(error_code="from_the_future", error_message="?"))
    assert error is not None
    assert (error.code, error.retryable) == ("from_the_future", False)


def test_a_hit_carries_its_mark() -> None:
    """`cache` says where an answer came from; null is the engine."""
    assert m.done("t", "g", 3, Outcome(cache=CACHE_MARK_EXACT)).cache == "exact"
    assert m.done("t", "g", 3, Outcome()).cache is None


def test_an_error_names_only_what_it_has() -> None:
    """Fields that say nothing are left out, `retryable` never is."""
    plain = m.error(Problem(ErrorCode.INVALID_REQUEST, "no"))
    assert m.encode(plain) == b'{"t":"error","code":"invalid_request","message":"no","retryable":false}'
    full = m.error(Problem(ErrorCode.LIMITED, "no", "f", 1.5), key="k", task="t")
    assert msgspec.to_builtins(full) == {
        "t": "error",
        "code": "limited",
        "message": "no",
        "retryable": True,
        "key": "k",
        "task": "t",
        "field": "f",
        "retry_after_s": 1.5,
    }
