"""A Kafka producer on the event loop.

`confluent_kafka.Producer` polled every millisecond or two while something is in flight: its own asyncio wrapper batches on a
timer that alone costs more than our acknowledgment may take (measured: p50 2.7 s with its defaults), and lacks headers.
"""

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

log = logging.getLogger(__name__)

POLL_S: Final = 0.001


class KafkaAwayError(ConnectionError):
    """The broker did not confirm. Whether the record is in the log is unknown."""


class LoopProducer:
    """Idempotent, acks=all. Use as an async context manager; entering waits for no broker.

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
        self._poller: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._pending = 0
        self._fatal = False
        self._away = False
        self.ready = False

    async def __aenter__(self) -> Self:
        self._producer = self._new_producer()
        self._poller = asyncio.create_task(self._poll(), name="kafka producer poll")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._poller:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        if self._producer:
            await asyncio.to_thread(self._producer.flush, 2.0)

    async def send(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
        timeout_s: float = 5.0,
    ) -> None:
        """Produce and wait for the broker's acknowledgment. Raises KafkaAwayError: then the record may or may not be there."""
        assert self._producer
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def delivered(error: KafkaError | None, _: Message) -> None:
            self._pending -= 1
            if error is not None and error.fatal():
                self._fatal = True
            if not confirmed.done():
                if error is None:
                    self._is_back()
                    confirmed.set_result(None)
                else:
                    confirmed.set_exception(KafkaAwayError(f"{topic}: {error.str()}"))

        try:
            self._producer.produce(topic, value, key, headers=list(headers), on_delivery=delivered)
        except BufferError:
            raise KafkaAwayError(f"{topic}: the producer's buffer is full, the broker does not keep up") from None
        except KafkaException as error:
            raise KafkaAwayError(f"{topic}: {error}") from error
        self._pending += 1
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                await confirmed
        except TimeoutError:
            raise KafkaAwayError(f"{topic}: no confirmation within {timeout_s:.1f} s") from None

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

    def _on_error(self, error: Any) -> None:
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

    async def _poll(self) -> None:
        """Serve delivery reports while something is in flight, and errors once a second when idle."""
        while True:
            assert self._producer
            self._producer.poll(0)
            if self._fatal:
                # An idempotent producer that met a fatal error is of no use any more; what it held is unknown to callers.
                log.error("kafka producer met a fatal error and is replaced")
                self._producer.purge()
                self._producer.poll(0)
                self._producer, self._fatal = self._new_producer(), False
            if self._pending:
                await asyncio.sleep(POLL_S)
            else:
                self._wake.clear()
                try:
                    async with asyncio.timeout(1.0):
                        await self._wake.wait()
                except TimeoutError:
                    pass
