"""What chaos does beside signals, it does."""

import contextlib
import random
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from services.pools.core.lanes import topics_of
from services.pools.topics import create
from tests.chaos.strikes import NEWEST, cut, produce_again

CONNECTS_AND_READS = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    print(connection.recv(1))
"""


@contextlib.contextmanager
def connected() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A process with one connection, and the other end of that."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        port = server.getsockname()[1]
        with subprocess.Popen([sys.executable, "-c", CONNECTS_AND_READS, str(port)], stdout=subprocess.PIPE) as process:
            try:
                connection, _ = server.accept()
                connection.settimeout(20)
                with connection:
                    yield process, connection
            finally:
                process.kill()


def test_a_cut_ends_the_connections_of_a_process_on_both_sides():
    """Neither has asked for it; the process itself goes on."""
    with connected() as (process, connection):
        assert cut(process.pid, 1.0, random.Random(1)) == 1
        assert connection.recv(1) == b""
        assert process.communicate(timeout=20)[0] == b"b''\n"
        assert process.returncode == 0


def test_a_cut_takes_only_the_share_that_was_wished():
    """Nothing of it: the connection stays."""
    with connected() as (process, connection):
        assert cut(process.pid, 0.0, random.Random(1)) == 0
        connection.sendall(b"x")
        assert process.communicate(timeout=20)[0] == b"b'x'\n"


def test_a_process_that_is_gone_has_nothing_to_cut():
    """It was killed a moment ago."""
    with connected() as (process, _):
        process.kill()
        process.wait()
        assert cut(process.pid, 1.0, random.Random(1)) == 0


@pytest.mark.real
def test_the_newest_records_of_all_lanes_come_again_as_they_were(kafka_bootstrap):
    """Same partition, key, value, headers and time; the older ones stay alone."""
    lanes = topics_of("twice")
    create(AdminClient({"bootstrap.servers": kafka_bootstrap}), lanes, 2, 1)
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    for number in range(NEWEST + 2):
        producer.produce(lanes[1], b"v%d" % number, b"k%d" % number, 1, headers={"class": b"standard"}, timestamp=1000)
    producer.produce(lanes[3], b"background", b"k", 0)
    assert producer.flush(20) == 0
    assert produce_again(kafka_bootstrap, "twice") == NEWEST + 1
    consumer = Consumer({"bootstrap.servers": kafka_bootstrap, "group.id": "twice", "enable.auto.commit": False})
    consumer.assign([TopicPartition(lanes[1], 1, 0)])
    records = consumer.consume(2 * NEWEST + 2, timeout=20)
    consumer.close()
    assert [r.value() for r in records] == [b"v%d" % n for n in [*range(NEWEST + 2), *range(2, NEWEST + 2)]]
    assert {(r.headers()[0], r.timestamp()[1]) for r in records} == {(("class", b"standard"), 1000)}
    assert [r.key() for r in records[-NEWEST:]] == [b"k%d" % n for n in range(2, NEWEST + 2)]
