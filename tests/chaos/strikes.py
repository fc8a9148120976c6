"""Faults that signals cannot do: cut the connections of a process, and give Kafka the same records again."""

import contextlib
import ctypes
import errno
import os
import random
import socket
import time
from collections.abc import Iterator

import psutil
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from services.pools.core.lanes import topics_of

_PIDFD_GETFD = 438  # on every architecture; neither os nor the C library of Debian 12 has it
NEWEST = 5  # records of each partition that are produced again
PATIENCE_S = 10.0


def cut(pid: int, share: float, rng: random.Random) -> int:
    """Shut a share of the established TCP connections of a process down, under its hands; how many there were.

    Both ends see the connection end, and what is under way towards the process is lost. It takes a copy of the socket from the
    process, which needs what a debugger needs: being its ancestor, or root. No proxy stands in the way of what is measured.
    """
    done = 0
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError), _opened(pid) as process:
        for connection in psutil.Process(pid).net_connections("tcp"):
            if connection.status == psutil.CONN_ESTABLISHED and rng.random() < share:
                with contextlib.suppress(OSError), _copied(process, connection.fd) as copy:
                    copy.shutdown(socket.SHUT_RDWR)
                    done += 1
    return done


@contextlib.contextmanager
def _opened(pid: int) -> Iterator[int]:
    process = os.pidfd_open(pid)
    try:
        yield process
    finally:
        os.close(process)


def _copied(process: int, descriptor: int) -> socket.socket:
    libc = ctypes.CDLL(None, use_errno=True)
    if (copy := libc.syscall(_PIDFD_GETFD, process, descriptor, 0)) < 0:
        number = ctypes.get_errno()
        if number in {errno.EPERM, errno.ENOSYS}:
            raise RuntimeError(f"connections cannot be cut here: {os.strerror(number)}")
        raise OSError(number, os.strerror(number))
    return socket.socket(fileno=copy)


def produce_again(bootstrap: str, pool: str) -> int:
    """Append the newest records of a pool's lanes once more, unchanged; how many. Not one while Kafka is away."""
    try:
        records = _newest(bootstrap, pool)
    except KafkaException:
        return 0
    producer = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": int(PATIENCE_S * 1000), "log_level": 0})
    for record in records:
        producer.produce(
            record.topic(),
            record.value(),
            record.key(),
            record.partition(),
            headers=record.headers(),
            timestamp=record.timestamp()[1],
        )
    return len(records) - producer.flush(PATIENCE_S)


def _newest(bootstrap: str, pool: str) -> list[Message]:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "chaos", "enable.auto.commit": False, "log_level": 0}
    )
    try:
        topics = consumer.list_topics(timeout=PATIENCE_S).topics
        places, wanted = list[TopicPartition](), 0
        for topic in topics_of(pool):
            for partition in topics[topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=PATIENCE_S)
                begin = max(low, high - NEWEST)
                places.append(TopicPartition(topic, partition, begin))
                wanted += high - begin
        consumer.assign(places)
        records = list[Message]()
        ends = time.monotonic() + PATIENCE_S
        while len(records) < wanted and time.monotonic() < ends:
            records += [
                message for message in consumer.consume(wanted - len(records), timeout=0.2) if not message.error()
            ]
        return records
    finally:
        consumer.close()
