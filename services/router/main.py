"""Wires the router: Redis, Kafka, configuration, signals, the servicer."""

import asyncio

from millrace.config.v1.config_pb2 import Snapshot
from services.chassis.configuration import ConfigurationWatch
from services.chassis.framed_server import framed_server
from services.chassis.kafka import LoopProducer
from services.chassis.lifecycle import Service, run
from services.chassis.metrics import config_age
from services.chassis.resp import Resp
from services.pools.owner_lookup import OwnerLookup
from services.pools.signals_listener import SignalsListener
from services.router.acceptance import Acceptance, World
from services.router.adapters.dispatcher_pool_signals import DispatcherPoolSignals
from services.router.adapters.kafka_task_sink import KafkaTaskSink
from services.router.core.routes import Routes
from services.router.servicer import RouterServicer
from services.router.settings import RouterSettings
from services.tasklog.adapters.kafka_usage_log import KafkaUsageLog
from services.tasklog.adapters.redis_task_control import RedisTaskControl
from services.tasklog.adapters.redis_token_log import RedisTokenLog
from services.tasklog.ending import Destinations

LINGER_MS = 0.5  # prompts come in batches: what one batch claims together is produced within this time


async def start(service: Service[RouterSettings]) -> None:
    """Start order; the stop is the reverse."""
    settings = service.settings
    redis = Resp(settings.redis_url, timeout_s=settings.redis_patience_s)
    await service.enter("redis", redis, ready=lambda: redis.connected)
    producer = LoopProducer(settings.kafka_bootstrap, linger_ms=LINGER_MS, message_timeout_s=settings.produce_s)
    await service.enter("kafka", producer, ready=lambda: producer.ready)
    service.spawn("kafka readiness", _keep_asking(producer))
    listener = await service.enter("signals", SignalsListener(OwnerLookup(redis)))
    watch = ConfigurationWatch(settings.redis_url, Snapshot.FromString)
    await service.enter("configuration", watch, ready=lambda: watch.current is not None)

    world = World(
        RedisTaskControl(redis),
        KafkaTaskSink(producer),
        Destinations(RedisTokenLog(redis), KafkaUsageLog(producer)),
        DispatcherPoolSignals(listener),
    )
    acceptance = Acceptance(world, settings, writer=f"router-{service.boot:x}")

    def configured(snapshot: Snapshot) -> None:
        acceptance.routes = Routes.of(snapshot)
        listener.follow(acceptance.routes.pools)

    watch.subscribe(configured)
    config_age.set_function(watch.age_s)
    await service.enter("calls", framed_server(settings.host, settings.port, RouterServicer(acceptance).methods))

    async def leave(_: float) -> None:
        await acceptance.drained()

    service.on_drain(leave)


async def _keep_asking(producer: LoopProducer) -> None:
    """Ready means that the broker answered; ask while it did not."""
    while True:
        if not producer.ready:
            await producer.reachable()
        await asyncio.sleep(0.5)


def main() -> None:
    """Run until told to stop."""
    run("router", RouterSettings, start)
