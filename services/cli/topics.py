"""`millrace topics`: the Kafka topics that an installation needs. They are never made by auto-creation."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from millrace_operator.core.snapshot import compile_snapshot
from millrace_operator.folders import read_manifests
from services.cli.options import Bootstrap, Data, kafka_address
from services.cli.stack.handle import StackError
from services.cli.stack.software import LOCAL
from services.pools.core.lanes import all_topics
from services.pools.topics import TIMEOUT_S, Offsets, begin, create

app = typer.Typer(help="The Kafka topics that Millrace needs.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def apply(
    data: Data,
    *,
    bootstrap: Bootstrap = "",
    manifests: Annotated[list[Path] | None, typer.Option(help="Folders with the WorkerPools.")] = None,
    partitions: Annotated[int, typer.Option(help="Of each new topic.")] = 3,
    replication: Annotated[
        int, typer.Option(help="Copies of each new topic: 3 where there are three brokers, two of which then confirm.")
    ] = 1,
    offsets: Annotated[
        Offsets,
        typer.Option(
            help="Where to begin in a lane with records whose committed offset was lost: at the beginning (what has ended "
            "already does not run again) or at the end (what waits there never runs)."
        ),
    ] = Offsets.ASK,
) -> None:
    r"""Create the topics that are missing, and commit where each pool's dispatcher begins.

    Four lanes for each pool, usage, dead letters, and Kafka's own topic for offsets.

    \b
    millrace topics apply
    millrace topics apply --bootstrap kafka:9092 --partitions 12 --replication 3
    """
    pools = pools_of(manifests or [LOCAL / "manifests", data / "manifests"])
    address = kafka_address(bootstrap, data)
    wanted = all_topics(pools)
    created = create(AdminClient({"bootstrap.servers": address}), wanted, partitions, replication)
    lost = [place for pool in pools for place in begin(address, pool, created, offsets)]
    print(f"{len(created)} topics created, {len(wanted) - len(created)} were there")
    if lost:
        raise StackError(
            f"no committed offset, but records, in: {', '.join(lost)}. Nothing was changed there. Say where to begin: "
            "millrace topics apply --offsets beginning (what has ended already does not run again), or --offsets end"
        )


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


def pools_of(folders: Sequence[Path]) -> list[str]:
    """Names of the WorkerPools in folders of manifests; whatever else is there does not matter. Raises StackError."""
    manifests, flaws = read_manifests(folders)
    pools = [m for m in manifests if isinstance(m.document, dict) and m.document.get("kind") == "WorkerPool"]
    compiled = compile_snapshot(pools)
    if isinstance(compiled, list) or flaws:
        raise StackError("\n".join(map(str, compiled if isinstance(compiled, list) else flaws)))
    return [pool.name for pool in compiled.pools]


if __name__ == "__main__":
    app()
