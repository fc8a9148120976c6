"""The judge of chaos finds what went wrong, and only that."""

from collections.abc import Callable
from typing import Any

import pytest

from millrace.task.v1.task_pb2 import OUTCOME_KIND_COMPLETED, UsageRecord
from services.tasklog.core.ids import gen_text
from tests.chaos.reader import KEY, Answer
from tests.chaos.verdict import FAULTS, judge, repeated, surprises

GEN = 5 << 20
ENGINE_BREAKS = (10.0, 20.0, 30.0)


def answer(**other: Any) -> Answer:
    end = {"outcome": "completed", "gen": gen_text(GEN), "usage": {"prompt_tokens": 2, "completion_tokens": 3}}
    return Answer(
        "key", "prompt", "sim", 3, task="T", gen=gen_text(GEN), text=["abc"], ends=[end], **({"submissions": 1} | other)
    )


def record(gen: int = GEN, completion_tokens: int = 3, task: str = "T", key: str = "key") -> UsageRecord:
    record = UsageRecord(task=task, gen=gen, metadata={KEY: key})
    record.outcome.kind = OUTCOME_KIND_COMPLETED
    record.outcome.usage.prompt_tokens = 2
    record.outcome.usage.completion_tokens = completion_tokens
    return record


def wrong(
    *records: UsageRecord, read: Answer | None = None, second: tuple[Answer, ...] = (), log: str = ""
) -> dict[str, int]:
    """The counts that are not 0."""
    usage: dict[str, list[UsageRecord]] = {}
    for one in records:
        usage.setdefault(one.task, []).append(one)
    counts, sentences = judge(
        [read or answer()], second, usage, lambda _: "abc", logs={"worker-1": log}, engine_breaks=ENGINE_BREAKS
    )
    assert set(counts) == set(FAULTS)
    assert len(sentences) == counts.total()
    return {kind: count for kind, count in counts.items() if count}


def test_one_record_of_the_text_that_was_read_is_right() -> None:
    """Nothing to complain about."""
    assert not wrong(record())


def test_a_repeated_record_and_one_of_an_older_text_are_counted_and_allowed() -> None:
    """Usage is at least once; readers keep the newest text's."""
    records = [record(), record(), record(), record(GEN - 1, completion_tokens=1)]
    assert not wrong(*records)
    assert repeated([answer()], {"T": records}) == {
        "usage repeated": 2, "usage at another instant": 0, "usage of older texts": 1,
    }  # fmt: skip


def test_two_instants_of_one_end_are_allowed_only_to_a_client_that_submitted_twice() -> None:
    """Its records in Kafka may be two, each with its submission's time."""
    early, late = record(), record()
    late.ended_at.FromSeconds(1)
    assert wrong(early, late) == {"usage": 1}
    assert not wrong(early, late, read=answer(submissions=2))
    assert repeated([answer()], {"T": [early, late]})["usage at another instant"] == 1


@pytest.mark.parametrize(
    "records",
    [
        (),
        (record(GEN - 1),),
        (record(), record(GEN + 1)),
        (record(), record(completion_tokens=4)),
        (record(completion_tokens=4),),
        (record(), record(task="U")),
    ],
    ids=["none", "only of an older text", "of a text nobody read", "two that differ", "another count", "a second task"],
)
def test_records_that_charge_something_else_are_wrong(records: tuple[UsageRecord, ...]) -> None:
    """Each is one fault."""
    assert wrong(*records) == {"usage": 1}


def test_records_of_tasks_that_are_not_of_this_run_are_nobodys_business() -> None:
    """Those that were asked while the stack warmed up carry no key."""
    other = record(task="U")
    del other.metadata[KEY]
    assert not wrong(record(), other)


def _end_twice(read: Answer) -> None:
    read.ends *= 2


def _lose(read: Answer) -> None:
    read.lost = 1


def _double(read: Answer) -> None:
    read.doubled = 1


def _garble(read: Answer) -> None:
    read.text = ["abd"]


def _complain(read: Answer) -> None:
    read.complaint = "text after the end"


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (_end_twice, "not exactly one end"),
        (_lose, "lost"),
        (_double, "doubled"),
        (_garble, "wrong bytes"),
        (_complain, "protocol"),
    ],
)
def test_what_a_reader_saw_is_judged(harm: Callable[[Answer], None], kind: str) -> None:
    """Each is one fault of its kind."""
    read = answer()
    harm(read)
    assert wrong(record(), read=read) == {kind: 1}


def test_a_second_reader_must_see_the_same_text_of_the_same_gen() -> None:
    """Equal bytes of another text are no agreement."""
    same, other = answer(), answer()
    other.gen = gen_text(GEN + 1)
    assert not wrong(record(), second=(same,))
    assert wrong(record(), second=(other,)) == {"disagreement": 1}


TRACEBACK = """2026-11-29 15:26:13,246 ERROR   services.chassis.lifecycle: attach died, the service stops
Traceback (most recent call last):
  File "services/worker/attach.py", line 68, in run
    if await self._look():
       ^^^^^^^^^^^^^^^^^^
hiredis.ReplyError: LOADING Redis is loading the dataset in memory
2026-11-29 15:26:13,503 INFO    services.chassis.lifecycle: worker stopped
"""


def test_an_exception_that_nobody_planned_is_wrong_whoever_recovers_from_it() -> None:
    """The log of a process has its traceback; what it logs in a sentence was planned."""
    assert not wrong(
        record(), log="2026-11-29 15:26:13,054 WARNING services.chassis.resp: lost the connection to Redis\n"
    )
    assert wrong(record(), log=TRACEBACK) == {"tracebacks": 1}
    assert surprises(TRACEBACK * 3) == {"hiredis.ReplyError: LOADING Redis is loading the dataset in memory": 3}


@pytest.mark.parametrize(("began_at", "right"), [(9.0, True), (11.0, False)])
def test_a_task_may_be_given_up_if_its_engine_broke_off_three_times(began_at: float, right: bool) -> None:
    """That is what an installation is told to do; twice is no reason."""
    read = answer(began_at=began_at, ended_at=31.0)
    read.ends = [{"outcome": "failed", "error": {"code": "engine_failed"}}]
    assert wrong(read=read) == ({} if right else {"not exactly one end": 1})
    read.ends *= 2
    assert wrong(read=read) == {"not exactly one end": 1}
