"""What must hold after the faults."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, TopicPartition

from millrace.task.v1.task_pb2 import UsageRecord
from tests.chaos.reader import Answer


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


def judge(
    answers: Sequence[Answer],
    second_readers: Sequence[Answer],
    usage: dict[str, list[UsageRecord]],
    expected: Callable[[Answer], str | None],
) -> tuple[Counter[str], list[str]]:
    """Counts of what went wrong (all must be 0), and one sentence for each."""
    wrong: Counter[str] = Counter(
        dict.fromkeys(("lost", "doubled", "wrong bytes", "not exactly one end", "usage", "disagreement", "protocol"), 0)
    )
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
        if len(answer.ends) != 1 or answer.ends[0].get("outcome") != "completed":
            complain("not exactly one end", answer, str(answer.ends))
        elif (right := expected(answer)) is not None and answer.whole != right:
            complain("wrong bytes", answer, f"{answer.whole[:80]!r}... instead of {right[:80]!r}...")
        newest = {r.gen for r in usage.get(answer.task, [])}
        if not newest:
            complain("usage", answer, "no record")
        elif len({r.SerializeToString(deterministic=True) for r in usage[answer.task] if r.gen == max(newest)}) > 1:
            outcomes = {
                (r.outcome.kind, r.outcome.usage.completion_tokens) for r in usage[answer.task] if r.gen == max(newest)
            }
            if len(outcomes) > 1:
                complain("usage", answer, f"records of one text differ: {outcomes}")
    for second in second_readers:
        first = by_task[second.task]
        if second.whole != first.whole or second.complaint or second.lost or second.doubled:
            complain("disagreement", second, second.complaint or "another text than the first reader saw")
    return wrong, sentences
