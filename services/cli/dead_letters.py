"""`millrace dead`: tasks that used up their attempts, from the topic `tasks.dead`."""

import asyncio
import base64
import secrets
import time
from collections.abc import Iterator
from typing import Annotated

import typer
from confluent_kafka import Consumer, KafkaException, TopicPartition
from google.protobuf import text_format

from millrace.task.v1.task_pb2 import DeadTask, Task
from services.cli.options import Bootstrap, Data, kafka_address
from services.cli.stack.handle import Stack, StackError
from services.pools.core.lanes import DEAD_TOPIC

app = typer.Typer(help="Tasks that failed too often.", no_args_is_help=True, rich_markup_mode=None)

TIMEOUT_S = 10.0
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="Task id.")]


@app.command("list")
def list_(data: Data, bootstrap: Bootstrap = "") -> None:
    r"""All dead tasks that Kafka still holds, the oldest first.

    \b
    millrace dead list
    """
    dead = sorted(read_all(kafka_address(bootstrap, data)), key=lambda d: d.buried_at.ToMicroseconds())
    for entry in dead:
        task, reason = entry.task, entry.history[-1] if entry.history else ""
        print(f"{entry.buried_at.ToJsonString()}  {task.id}  {task.tenant}/{task.pool}  {reason}")
    print(f"{len(dead)} dead tasks")


@app.command()
def show(task: TaskId, data: Data, bootstrap: Bootstrap = "") -> None:
    r"""One dead task: its history and the whole record.

    \b
    millrace dead show 5ks2v6l7c3x4q5w6e7r2t3y4u5
    """
    print(text_format.MessageToString(find(kafka_address(bootstrap, data), task), as_utf8=True), end="")


@app.command()
def redrive(
    task: TaskId,
    data: Data,
    bootstrap: Bootstrap = "",
    router: Annotated[str, typer.Option(help="The router's address; by default that of the stack here.")] = "",
) -> None:
    r"""Submit a dead task again, under a new id, with as much time as it had. Its first id has its end already.

    \b
    millrace dead redrive 5ks2v6l7c3x4q5w6e7r2t3y4u5
    """
    again = redriven(find(kafka_address(bootstrap, data), task).task, new_id(), time.time())
    addresses = [router] if router else Stack(data).status.addresses("router", "calls")
    pool = asyncio.run(accept(addresses, again))
    print(f"accepted as {again.id} in pool {pool}")


def read_all(bootstrap: str) -> Iterator[DeadTask]:
    """Every record of the topic as it is now. Raises KafkaException."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "millrace.dead", "enable.auto.commit": False})
    try:
        numbers = consumer.list_topics(DEAD_TOPIC, TIMEOUT_S).topics[DEAD_TOPIC].partitions
        for number in numbers:
            first, end = consumer.get_watermark_offsets(TopicPartition(DEAD_TOPIC, number), TIMEOUT_S)
            consumer.assign([TopicPartition(DEAD_TOPIC, number, first)])
            position = first
            while position < end:
                message = consumer.poll(TIMEOUT_S)
                if message is None:
                    raise StackError(f"Kafka does not hand out record {position} of {DEAD_TOPIC}-{number}")
                if message.error():
                    raise KafkaException(message.error())
                yield DeadTask.FromString(message.value() or b"")
                position += 1
    finally:
        consumer.close()


def find(bootstrap: str, task: str) -> DeadTask:
    """The last burial of a task. Raises StackError if there is none."""
    buried = [entry for entry in read_all(bootstrap) if entry.task.id == task]
    if not buried:
        raise StackError(f"no dead task is called {task}; see: millrace dead list")
    return buried[-1]


def new_id() -> str:
    """128 random bits, written like every task id."""
    return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def redriven(task: Task, task_id: str, now: float) -> Task:
    """The same work as a new task: fresh times, no reader, no cache twin, and a note of where it came from."""
    again = Task()
    again.CopyFrom(task)
    again.id = task_id
    for field in ("pool", "idempotency_key", "route", "joined", "cache_ticket", "traceparent"):
        again.ClearField(field)
    patience_us = task.deadline.ToMicroseconds() - task.submitted_at.ToMicroseconds()
    again.submitted_at.FromMicroseconds(round(now * 1e6))
    again.deadline.FromMicroseconds(round(now * 1e6) + patience_us)
    again.metadata["redriven_from"] = task.id
    return again


async def accept(routers: list[str], task: Task) -> str:
    """Hand a task to a router, as a gateway does; the pool it went to. Raises StackError if it is refused."""
    # Needed here only, and dear to import.
    from millrace.router.v1 import router_pb2
    from millrace.router.v1.router_pb2 import AcceptReply, AcceptRequest
    from services.chassis.backoff import backoff
    from services.chassis.batched import BatchedClient
    from services.chassis.errors import ProblemError
    from services.chassis.framing import method

    payload = AcceptRequest(task=task).SerializeToString()
    async with BatchedClient(routers, method(router_pb2, "Router", "Accept")) as client:
        patience = time.monotonic() + TIMEOUT_S
        for pause in backoff(0.02, 0.1):
            if client.ready or time.monotonic() > patience:
                break
            await asyncio.sleep(pause)
        try:
            reply = AcceptReply.FromString(await client.call(payload, time.time() + TIMEOUT_S))
        except ProblemError as refused:
            raise StackError(f"the router refuses: {refused.problem.message}") from None
    if reply.HasField("rejected"):
        raise StackError(f"the router refuses: {reply.rejected.code}, {reply.rejected.message}")
    return reply.accepted.pool
