"""What must hold after the faults.

Usage is at least once: whoever takes over a task that has ended runs its end routine again, from the end that is in the log, and
cannot know whether the record went out before. So a task may have several records of one text, and they must say the same; a
reader of the topic keeps one of the newest text. A text that was lost after its end leaves a record of its own, which the newer
one replaces. Only the instant may differ, and only if the client submitted more than once: `ended_at` counts from the submission,
and of two whose confirmations were lost both may lie in Kafka. All this is counted and is no fault: `usage repeated`, `usage at
another instant`, `usage of older texts`.
"""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from millrace.task.v1.task_pb2 import OUTCOME_KIND_COMPLETED, UsageRecord
from services.tasklog.core.ids import gen_text, parse_gen
from tests.chaos.reader import KEY, Answer

FAULTS: Final = (
    "lost",
    "doubled",
    "wrong bytes",
    "not exactly one end",
    "usage",
    "disagreement",
    "protocol",
    "tracebacks",
)
MAX_ATTEMPTS: Final = 3  # spec.poison of a WorkerPool that does not say otherwise
_TRACEBACK: Final = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \n].*\n?)*(.*)", re.MULTILINE)
Usage = Mapping[str, Sequence[UsageRecord]]


def usage_records(bootstrap: str) -> dict[str, list[UsageRecord]]:
    """All records of the topic `usage`, by task."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "chaos", "enable.auto.commit": False})
    partitions = [
        TopicPartition("usage", p, 0) for p in consumer.list_topics("usage", timeout=10).topics["usage"].partitions
    ]
    wanted = sum(consumer.get_watermark_offsets(p, timeout=10)[1] for p in partitions)
    consumer.assign(partitions)
    records: dict[str, list[UsageRecord]] = defaultdict(list)
    ends, seen = time.monotonic() + 60, 0
    while seen < wanted and time.monotonic() < ends:
        for message in consumer.consume(1000, timeout=0.5):
            if not message.error():
                record = UsageRecord.FromString(message.value())
                records[record.task].append(record)
                seen += 1
    consumer.close()
    return records


def settled_usage(bootstrap: str, answers: Sequence[Answer], patience_s: float = 60.0) -> dict[str, list[UsageRecord]]:
    """All records once every task has one: a client sees the end first, and the record waits for Kafka or for the next attempt."""
    ends = time.monotonic() + patience_s
    while True:
        usage = usage_records(bootstrap)
        if all(answer.task in usage for answer in answers) or time.monotonic() > ends:
            return usage
        time.sleep(1)


def judge(
    answers: Sequence[Answer],
    second_readers: Sequence[Answer],
    usage: Usage,
    expected: Callable[[Answer], str | None],
    *,
    logs: Mapping[str, str],
    engine_breaks: Sequence[float] = (),
) -> tuple[Counter[str], list[str]]:
    """Counts of what went wrong (all must be 0), and one sentence for each.

    `expected` knows the whole text, or that it is not known; `logs` are those of our processes, by instance; `engine_breaks`
    the instants (monotonic) at which a worker was cut off from its engine.
    """
    wrong: Counter[str] = Counter(dict.fromkeys(FAULTS, 0))
    sentences: list[str] = []

    def complain(kind: str, answer: Answer, why: str) -> None:
        wrong[kind] += 1
        sentences.append(f"{kind}: {answer.key} task {answer.task}: {why}")

    by_task = {a.task: a for a in answers}
    for answer in answers:
        if answer.lost:
            complain("lost", answer, f"{answer.lost} bytes")
        if answer.doubled:
            complain("doubled", answer, f"{answer.doubled} bytes")
        if answer.complaint:
            complain("protocol", answer, answer.complaint)
        if len(answer.ends) == 1 and given_up(answer, engine_breaks):
            continue
        if len(answer.ends) != 1 or answer.ends[0].get("outcome") != "completed":
            complain("not exactly one end", answer, str(answer.ends))
            continue
        if (right := expected(answer)) is not None and answer.whole != right:
            complain("wrong bytes", answer, f"{answer.whole[:80]!r}... instead of {right[:80]!r}...")
        if why := wrong_usage(answer, usage.get(answer.task, ())):
            complain("usage", answer, why)
    for second in second_readers:
        first = by_task[second.task]
        if (second.gen, second.whole) != (first.gen, first.whole) or second.complaint or second.lost or second.doubled:
            complain("disagreement", second, second.complaint or "another text than the first reader saw")
    for key, task in tasks_of_nobody(by_task, usage):
        wrong["usage"] += 1
        sentences.append(f"usage: {key} was acknowledged as another task than {task}, which ran too")
    for instance, text in logs.items():
        for surprise, times in surprises(text).items():
            wrong["tracebacks"] += times
            sentences.append(f"tracebacks: {instance}, {times} times: {surprise}")
    return wrong, sentences


def given_up(answer: Answer, engine_breaks: Sequence[float]) -> bool:
    """Did it end as one must whose engine failed it too often? Only if it was cut off so often while the client waited."""
    error = answer.ends[0].get("error") or {}
    breaks = sum(answer.began_at <= at <= answer.ended_at for at in engine_breaks)
    return error.get("code") == "engine_failed" and breaks >= MAX_ATTEMPTS


def surprises(log: str) -> Counter[str]:
    """What nobody planned: the exceptions whose tracebacks are in a log. Clients may recover from it; it is a bug all the same.

    >>> surprises("INFO started\\nTraceback (most recent call last):\\n  File x\\n    f()\\nValueError: zip\\nINFO stopped\\n")
    Counter({'ValueError: zip': 1})
    """
    return Counter(found.strip() for found in _TRACEBACK.findall(log))


def wrong_usage(answer: Answer, records: Sequence[UsageRecord]) -> str:
    """What is wrong with the records of a task whose end was seen; empty if nothing."""
    end = answer.ends[0]
    gen = parse_gen(end["gen"])
    of_this = [r for r in records if r.gen == gen]
    if not of_this:
        return f"no record of the text {end['gen']}"
    if newer := {gen_text(r.gen) for r in records if r.gen > gen}:
        return f"ended as {end['gen']}, records of newer texts: {', '.join(newer)}"
    once = answer.submissions == 1
    if len(_charges(of_this)) > 1 or (once and len(_instants(of_this)) > 1):
        return f"records of one text differ: {' / '.join(map(str, of_this))}"
    told = of_this[0].outcome
    counted = {"prompt_tokens": told.usage.prompt_tokens, "completion_tokens": told.usage.completion_tokens}
    seen = {name: end["usage"][name] for name in counted}
    if told.kind != OUTCOME_KIND_COMPLETED or counted != seen:
        return f"the client was told {seen}, the record says {counted}"
    return ""


def _charges(records: Sequence[UsageRecord]) -> set[bytes]:
    """All that they say but the instant."""
    copies = [UsageRecord.FromString(r.SerializeToString()) for r in records]
    for copy in copies:
        copy.ClearField("ended_at")
    return {copy.SerializeToString(deterministic=True) for copy in copies}


def _instants(records: Sequence[UsageRecord]) -> set[int]:
    return {r.ended_at.ToNanoseconds() for r in records}


def tasks_of_nobody(known: Mapping[str, Answer], usage: Usage) -> list[tuple[str, str]]:
    """Keys and tasks of records that carry a client's key, of tasks that no client knows: a key ran as two tasks."""
    return [(r[0].metadata[KEY], task) for task, r in usage.items() if KEY in r[0].metadata and task not in known]


def repeated(answers: Sequence[Answer], usage: Usage) -> dict[str, int]:
    """What is allowed, and counted: records beyond the first of the text that was read, and those of texts before it."""
    counts = dict.fromkeys(("usage repeated", "usage at another instant", "usage of older texts"), 0)
    for answer in answers:
        records = usage.get(answer.task, ())
        newest = max((r.gen for r in records), default=0)
        of_newest = [r for r in records if r.gen == newest]
        counts["usage repeated"] += max(0, len(of_newest) - 1)
        counts["usage at another instant"] += max(0, len(_instants(of_newest)) - 1)
        counts["usage of older texts"] += len(records) - len(of_newest)
    return counts
