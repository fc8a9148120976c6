"""The client of chaos counts what it is sent."""

import random
from typing import Any

from tests.chaos.reader import Answer, Reader

ACK = {"t": "ack", "task": "T"}
DONE = {"t": "done", "outcome": "completed", "gen": "g", "offset": 3}


def delta(offset: int, text: str, gen: str = "g") -> dict[str, Any]:
    return {"t": "delta", "gen": gen, "offset": offset, "text": text}


def read(*frames: dict[str, Any]) -> Answer:
    """What a reader makes of these frames, over however many connections they come."""
    answer, reader = Answer("key", "prompt", "sim", 3), Reader(list, "", random.Random(1), 0.0)
    for frame in frames:
        reader._take(answer, frame)
    return answer


def test_an_answer_without_a_fault_has_none() -> None:
    """Offsets are those of bytes."""
    answer = read(ACK, delta(2, "ß"), delta(3, "c"), DONE)
    assert (answer.whole, answer.lost, answer.doubled, answer.complaint, len(answer.ends)) == ("ßc", 0, 0, "", 1)


def test_bytes_that_are_missing_or_come_twice_are_counted() -> None:
    """By the offsets."""
    assert read(ACK, delta(1, "a"), delta(4, "d")).lost == 2
    assert read(ACK, delta(2, "ab"), delta(3, "bc")).doubled == 1


def test_a_restart_begins_at_nothing_and_only_if_it_is_said() -> None:
    """Another text without the word for it is a complaint."""
    answer = read(ACK, delta(2, "ab"), {"t": "restarted", "gen": "h"}, delta(1, "x", "h"))
    assert (answer.whole, answer.restarts, answer.complaint) == ("x", 1, "")
    assert "without `restarted`" in read(ACK, delta(1, "a"), delta(2, "b", "h")).complaint


def test_a_key_is_one_task() -> None:
    """However often it is submitted."""
    assert not read(ACK, ACK).complaint
    assert "U" in read(ACK, {"t": "ack", "task": "U"}).complaint


def test_nothing_follows_an_end() -> None:
    """Text after it is a complaint, and so is an end elsewhere than at the last byte; two ends are two."""
    assert read(ACK, delta(3, "abc"), DONE, delta(4, "d")).complaint == "text after the end"
    assert read(ACK, delta(2, "ab"), DONE).complaint == "ends at 3, read 2"
    assert len(read(ACK, delta(3, "abc"), DONE, DONE).ends) == 2


def test_a_refusal_that_is_final_ends_the_reading() -> None:
    """One that may be retried does not."""
    assert not read({"t": "error", "code": "unavailable", "retryable": True}).ends
    assert read({"t": "error", "code": "invalid_request", "retryable": False}).complaint
