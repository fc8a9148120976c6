"""What may be asked, and how a refusal reads."""

import msgspec
import pytest

from millrace.task.v1.task_pb2 import PriorityClass
from services.chassis.errors import ErrorCode, Problem
from services.gateway.core.submission import (
    BATCH_DEADLINE_S,
    DEADLINE_S,
    MAX_MESSAGES,
    MAX_TASK_BYTES,
    Submission,
    SubmitFields,
    body_hash,
    check,
    decoded,
)

decode = msgspec.json.Decoder(SubmitFields).decode


def submission(**fields: object) -> Submission | Problem:
    asked = decoded(decode, msgspec.json.encode({"model": "tiny", "input": "hi"} | fields))
    return asked if isinstance(asked, Problem) else check(asked)


def test_defaults_are_filled_in() -> None:
    """A prompt alone is enough; batch and background work may wait a day."""
    asked = submission()
    assert isinstance(asked, Submission)
    assert [(m.role, m.content) for m in asked.messages] == [("user", "hi")]
    assert (asked.temperature, asked.top_p, asked.max_tokens, asked.deadline_s) == (1.0, 1.0, 0, DEADLINE_S)
    assert (asked.priority_class, asked.on_disconnect) == (PriorityClass.PRIORITY_CLASS_STANDARD, "keep")
    batch = submission(**{"class": "batch"})
    assert isinstance(batch, Submission)
    assert batch.deadline_s == BATCH_DEADLINE_S


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": ""}]}, "input"),
        ({"input": [{"role": "user", "content": "a"}] * (MAX_MESSAGES + 1)}, "input"),
        ({"model": ""}, "model"),
        ({"key": ""}, "key"),
        ({"key": "x" * 201}, "key"),
        ({"class": "urgent"}, "class"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"on_disconnect": "explode"}, "on_disconnect"),
        ({"on_disconnect": {"cancel_after_s": -1}}, "on_disconnect.cancel_after_s"),
        ({"on_disconnect": {"after": 1}}, "on_disconnect.after"),
        ({"cache": "maybe"}, "cache"),
        ({"cache": "only"}, "cache"),
        ({"metadata": {"k": 1}}, "metadata[...]"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"conversation": "c"}, "conversation"),
        ({"previous": "p"}, "previous"),
    ],
)
def test_each_rule_names_its_field(fields: dict[str, object], field: str) -> None:
    """A refusal is `invalid_request`, with the field by itself and in the sentence."""
    problem = submission(**fields)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.field) == (ErrorCode.INVALID_REQUEST, field)
    assert problem.message.startswith(field)


def test_too_much_is_too_large() -> None:
    """A task has a largest size, in bytes of UTF-8."""
    problem = submission(input="ü" * (MAX_TASK_BYTES // 2 + 1))
    assert isinstance(problem, Problem)
    assert problem.code is ErrorCode.TOO_LARGE


def test_the_hash_knows_everything_but_the_key() -> None:
    """Any other wish is another body; another key is not."""
    plain = submission()
    assert isinstance(plain, Submission)
    hashes = {body_hash(plain)}
    for fields in (
        {"input": "ho"},
        {"model": "sim"},
        {"max_tokens": 5},
        {"temperature": 0},
        {"top_p": 0.5},
        {"seed": 0},
        {"stop": "x"},
        {"deadline_s": 5},
        {"on_disconnect": "cancel"},
        {"on_disconnect": {"cancel_after_s": 1}},
        {"cache": "bypass"},
        {"metadata": {"a": "b"}},
        {"class": "batch"},
        {"input": [{"role": "system", "content": "hi"}]},
    ):
        other = submission(**fields)
        assert isinstance(other, Submission)
        hashes.add(body_hash(other))
    assert len(hashes) == 15
    same = submission(key="k")
    assert isinstance(same, Submission)
    assert body_hash(same) in hashes
