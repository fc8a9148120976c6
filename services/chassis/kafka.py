"""A Kafka producer for an event loop.

`confluent_kafka.Producer` with one thread that waits for its delivery reports: its own asyncio wrapper batches on a timer that
alone costs more than our acknowledgment may take (measured: p50 2.7 s with its defaults) and lacks headers, and polling it from
the loop every millisecond wakes the process more often than there are reports.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

log = logging.getLogger(__name__)


class KafkaAwayError(ConnectionError):
    """The broker did not confirm. Whether the record is in the log is unknown."""


class LoopProducer:
    """Idempotent, acks=all. Use as an async context manager; entering waits for no broker.

    Records gather for `linger_ms`: a producer whose callers can wait costs the broker less with a longer one.

    `timeout_s` of `send` bounds the caller's wait; librdkafka gives up on a record after `message_timeout_s`, which must
    not be longer than what a caller may call unknown.
    """

    def __init__(self, bootstrap: str, *, linger_ms: float = 0, message_timeout_s: float = 10.0) -> None:
        self._config = {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": linger_ms,
            "message.timeout.ms": int(message_timeout_s * 1000),
            "request.timeout.ms": 3000,
            "socket.timeout.ms": 6000,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "retry.backoff.ms": 50,
            "retry.backoff.max.ms": 200,
            "message.max.bytes": 1_048_576,
            "log_level": 0,
        }
        self._producer: Producer | None = None
        self._reports: deque[tuple[asyncio.Future[KafkaError | None], KafkaError | None]] = deque()
        self._closing = self._fatal = self._away = False
        self.ready = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._producer = self._new_producer()
        self._thread = threading.Thread(target=self._serve, name="kafka producer", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._producer:
            await asyncio.to_thread(self._producer.flush, 2.0)
        self._closing = True
        await asyncio.to_thread(self._thread.join)

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
        timeout_s: float = 5.0,
    ) -> None:
        """Produce and wait for the broker's acknowledgment. Raises KafkaAwayError: then the record may or may not be there."""
        assert self._producer
        confirmed: asyncio.Future[KafkaError | None] = self._loop.create_future()

        def delivered(error: KafkaError | None, _: Message) -> None:  # in the thread
            self._reports.append((confirmed, error))
            if len(self._reports) == 1:
                self._loop.call_soon_threadsafe(self._confirm)

        try:
            self._producer.produce(topic, value, key, headers=list(headers), on_delivery=delivered)
        except BufferError:
            raise KafkaAwayError(f"{topic}: the producer's buffer is full, the broker does not keep up") from None
        except KafkaException as error:
            raise KafkaAwayError(f"{topic}: {error}") from error
        try:
            async with asyncio.timeout(timeout_s):
                failure = await confirmed
        except TimeoutError:
            raise KafkaAwayError(f"{topic}: no confirmation within {timeout_s:.1f} s") from None
        if failure is not None:
            raise KafkaAwayError(f"{topic}: {failure.str()}")

    async def reachable(self, timeout_s: float = 2.0) -> bool:
        """Ask the broker for its metadata."""
        assert self._producer
        try:
            await asyncio.to_thread(self._producer.list_topics, timeout=timeout_s)
        except KafkaException:
            self.ready = False
        else:
            self._is_back()
        return self.ready

    def _new_producer(self) -> Producer:
        return Producer(self._config | {"error_cb": self._on_error})

    def _confirm(self) -> None:
        while self._reports:
            confirmed, error = self._reports.popleft()
            if error is None:
                self._is_back()
            elif error.fatal():
                self._fatal = True
            if not confirmed.done():
                confirmed.set_result(error)

    def _on_error(self, error: Any) -> None:  # in the thread
        if error.fatal():
            self._fatal = True
        # librdkafka repeats itself with every try to connect; a change is worth a line.
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._away:  # noqa: SLF001 - the library's own public name
            self.ready, self._away = False, True
            log.warning("no Kafka broker can be reached: %s", self._config["bootstrap.servers"])

    def _is_back(self) -> None:
        self.ready = True
        if self._away:
            self._away = False
            log.info("Kafka is back")

    def _serve(self) -> None:
        """The thread: wait for reports and errors, and replace a producer that met a fatal error."""
        while not self._closing:
            assert self._producer
            self._producer.poll(0.25)
            if self._fatal:
                # An idempotent producer that met a fatal error is of no use any more; what it held is unknown to callers.
                log.error("the Kafka producer met a fatal error and is replaced")
                broken, self._producer, self._fatal = self._producer, self._new_producer(), False
                broken.purge()
                broken.poll(0)
