"""The producer on the event loop against a real broker."""

import asyncio
import time
import uuid

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from services.chassis.kafka import KafkaAwayError, LoopProducer
from tests.support.components import free_port


@pytest.fixture
def topic(kafka_bootstrap):
    name = f"producer-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(10)
    return name


def records(bootstrap, topic, count):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "t", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found, ends = [], time.monotonic() + 10
    while len(found) < count and time.monotonic() < ends:
        if (message := consumer.poll(0.2)) and not message.error():
            found.append((message.key(), message.value(), message.headers()))
    consumer.close()
    return found


async def test_a_confirmed_record_is_in_the_log(kafka_bootstrap, topic):
    """`send` returns after the broker's acknowledgment, with key, value and headers in place, in order."""
    async with LoopProducer(kafka_bootstrap) as producer:
        for i in range(20):
            await producer.send(topic, b"k", b"%d" % i, [("class", b"standard")])
        assert producer.ready
    found = await asyncio.to_thread(records, kafka_bootstrap, topic, 20)
    assert found == [(b"k", b"%d" % i, [("class", b"standard")]) for i in range(20)]


async def test_an_absent_broker_is_away_within_the_timeout():
    """The wait is bounded and the outcome said to be unknown."""
    async with LoopProducer(f"127.0.0.1:{free_port()}", message_timeout_s=0.3) as producer:
        began = time.monotonic()
        with pytest.raises(KafkaAwayError):
            await producer.send("t", b"k", b"v", timeout_s=0.3)
        assert time.monotonic() - began < 2
        assert not await producer.reachable(0.2)


async def test_a_topic_that_does_not_exist_is_an_error_that_names_it(kafka_bootstrap):
    """Topics are created by the operator or `millrace topics apply`, never by producing."""
    async with LoopProducer(kafka_bootstrap, message_timeout_s=3) as producer:
        with pytest.raises(KafkaAwayError, match="no-such-topic"):
            await producer.send("no-such-topic", b"k", b"v", timeout_s=5)
