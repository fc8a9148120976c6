"""`millrace topics`: the Kafka topics that an installation needs. They are never made by auto-creation."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from millrace_operator.folders import compile_folders
from services.cli.options import Bootstrap, Data, kafka_address
from services.cli.stack.handle import StackError
from services.cli.stack.software import LOCAL
from services.pools.core.lanes import DEAD_TOPIC, USAGE_TOPIC, all_topics, group_of

app = typer.Typer(help="The Kafka topics that Millrace needs.", no_args_is_help=True, rich_markup_mode=None)

HOUR_MS = 3_600_000
TIMEOUT_S = 30.0
# The longest deadline is that of batch work, 24 h; a record must outlive it by a day.
LANE_RETENTION_MS = 48 * HOUR_MS
RETENTION_MS = {USAGE_TOPIC: 14 * 24 * HOUR_MS, DEAD_TOPIC: 30 * 24 * HOUR_MS}


@app.command()
def apply(
    data: Data,
    bootstrap: Bootstrap = "",
    manifests: Annotated[list[Path] | None, typer.Option(help="Folders with the WorkerPools.")] = None,
    partitions: Annotated[int, typer.Option(help="Of each new topic.")] = 3,
    replication: Annotated[int, typer.Option(help="Copies of each new topic: 3 where there are three brokers.")] = 1,
) -> None:
    r"""Create the topics that are missing: four lanes for each pool, usage, dead letters, and Kafka's own for offsets.

    \b
    millrace topics apply
    millrace topics apply --bootstrap kafka:9092 --partitions 12 --replication 3
    """
    snapshot = compile_folders(manifests or [LOCAL / "manifests", data / "manifests"])
    if isinstance(snapshot, list):
        raise StackError("\n".join(map(str, snapshot)))
    pools = [pool.name for pool in snapshot.pools]
    admin = AdminClient({"bootstrap.servers": kafka_address(bootstrap, data)})
    wanted = all_topics(pools)
    created = create(admin, wanted, partitions, replication)
    open_offsets(admin, map(group_of, pools))
    print(f"{len(created)} topics created, {len(wanted) - len(created)} were there")


@app.command("list")
def list_(data: Data, bootstrap: Bootstrap = "") -> None:
    r"""All topics, their partitions and how many records they hold.

    \b
    millrace topics list
    """
    admin = AdminClient({"bootstrap.servers": kafka_address(bootstrap, data)})
    for name, topic in sorted(admin.list_topics(timeout=TIMEOUT_S).topics.items()):
        partitions = [TopicPartition(name, number) for number in topic.partitions]
        first, last = (_sum(admin, partitions, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))  # type: ignore[no-untyped-call]
        print(f"{name:32} {len(partitions):3} partitions {last - first:9} records")


def _sum(admin: AdminClient, partitions: Iterable[TopicPartition], spec: OffsetSpec) -> int:
    offsets = admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=TIMEOUT_S)
    return sum(int(future.result(TIMEOUT_S).offset) for future in offsets.values())


def create(admin: AdminClient, names: Iterable[str], partitions: int, replication: int) -> list[str]:
    """Create those that are missing; their names. Raises KafkaException."""
    there = admin.list_topics(timeout=TIMEOUT_S).topics
    new = [
        NewTopic(
            name,
            num_partitions=partitions,
            replication_factor=replication,
            config={"retention.ms": str(RETENTION_MS.get(name, LANE_RETENTION_MS)), "cleanup.policy": "delete"},
        )
        for name in names
        if name not in there
    ]
    if not new:
        return []
    for future in admin.create_topics(new, operation_timeout=TIMEOUT_S).values():
        try:
            future.result(TIMEOUT_S)
        except KafkaException as refused:  # somebody else was quicker
            if refused.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    return [topic.topic for topic in new]


def open_offsets(admin: AdminClient, groups: Iterable[str], patience_s: float = TIMEOUT_S) -> None:
    """Ask for groups until their coordinator answers. Raises KafkaException if it does not.

    That makes Kafka create `__consumer_offsets`, which otherwise delays a new installation's first commit by seconds.
    """
    asked = list(groups)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            for future in admin.describe_consumer_groups(asked, request_timeout=1.0).values():
                future.result(2.0)
        except (KafkaException, TimeoutError):  # the first request starts the creation and goes unanswered
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
