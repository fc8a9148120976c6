"""Wires the dispatcher: Redis, Kafka, configuration, the streams, one actor for each pool."""

import asyncio
from contextlib import AsyncExitStack

from millrace.cache.v1 import cache_pb2
from millrace.config.v1.config_pb2 import Snapshot
from services.chassis.batched import BatchedClient, addresses_of
from services.chassis.configuration import ConfigurationWatch
from services.chassis.framed_server import framed_server
from services.chassis.framing import method
from services.chassis.kafka import LoopProducer
from services.chassis.lifecycle import Service, run
from services.chassis.metrics import config_age
from services.chassis.resp import Resp
from services.dispatcher.adapters.kafka_lane_log import KafkaLaneLog
from services.dispatcher.adapters.redis_pool_lease import RedisPoolLease
from services.dispatcher.ownership import Pace, World
from services.dispatcher.pool_actor import PoolActor
from services.dispatcher.pools import Pools
from services.dispatcher.servicer import dispatch_methods
from services.dispatcher.settings import DispatcherSettings
from services.tasklog.adapters.cache_answer_store import CacheAnswerStore
from services.tasklog.adapters.kafka_usage_log import KafkaUsageLog
from services.tasklog.adapters.redis_task_control import RedisTaskControl
from services.tasklog.adapters.redis_token_log import RedisTokenLog
from services.tasklog.ending import Destinations


async def start(service: Service[DispatcherSettings]) -> None:
    """Start order; the stop is the reverse."""
    settings = service.settings
    redis = Resp(settings.redis_url, timeout_s=settings.lease_s)
    await service.enter("redis", redis, ready=lambda: redis.connected)
    producer = await service.enter("kafka", LoopProducer(settings.kafka_bootstrap))
    configuration = ConfigurationWatch(settings.redis_url, Snapshot.FromString)
    await service.enter("configuration", configuration, ready=lambda: configuration.current is not None)
    config_age.set_function(configuration.age_s)
    addresses = addresses_of(settings.cache_addresses)
    cache = await service.enter("cache", BatchedClient(addresses, method(cache_pb2, "Cache", "Store")))
    lanes = await service.enter("lanes", AsyncExitStack())

    control = RedisTaskControl(redis)
    to = Destinations(RedisTokenLog(redis), KafkaUsageLog(producer), CacheAnswerStore(cache))
    pace = Pace(
        renew_s=settings.renew_s,
        commit_horizon_s=settings.commit_horizon_s,
        commit_s=settings.commit_s,
        expect_s=settings.expect_s,
    )
    address = settings.address

    def actor(pool: str) -> PoolActor:
        lane_log = KafkaLaneLog(settings.kafka_bootstrap, pool, producer)
        lanes.push_async_callback(lane_log.shut)
        lease = RedisPoolLease(redis, pool, address, settings.lease_s)
        world = World(lane_log, lease, control, to, f"dispatcher {address}")
        return PoolActor(world, pace, settings.poll_s, settings.read_ahead_mib << 20)

    pools = Pools(actor)
    methods = dispatch_methods(pools.actors)
    server = await service.enter("streams", framed_server(settings.host, settings.port, methods))
    address = address or f"{settings.host}:{server.port}"
    configuration.subscribe(pools.configure)

    async def leave(left_s: float) -> None:
        async with asyncio.timeout(left_s):
            await pools.leave()

    service.on_drain(leave)


def main() -> None:
    """Run until told to stop."""
    run("dispatcher", DispatcherSettings, start)
