"""Wires the worker: Redis, Kafka, configuration, the engine, live frames, the line to the dispatcher."""

import asyncio
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from millrace.cache.v1 import cache_pb2
from millrace.config.v1.config_pb2 import Pool, Snapshot
from services.chassis.batched import BatchedClient, addresses_of
from services.chassis.configuration import ConfigurationWatch
from services.chassis.framing import method
from services.chassis.kafka import LoopProducer
from services.chassis.lifecycle import Service, run
from services.chassis.metrics import config_age
from services.chassis.resp import Resp
from services.pools.owner_lookup import OwnerLookup
from services.tasklog.adapters.cache_answer_store import CacheAnswerStore
from services.tasklog.adapters.kafka_usage_log import KafkaUsageLog
from services.tasklog.adapters.redis_token_log import RedisTokenLog
from services.tasklog.ending import Destinations
from services.worker.adapters.assets_prompts import AssetsPrompts
from services.worker.adapters.framed_frame_publisher import FramedFramePublisher
from services.worker.adapters.simulator_engine import Pacing, SimulatorEngine, SimulatorPrompts
from services.worker.attach import Attach
from services.worker.core.attempt_plan import Patience
from services.worker.core.tick import Tick
from services.worker.flusher import Flusher
from services.worker.ports import Engine, Prompts
from services.worker.settings import WorkerSettings
from services.worker.worker import Worker


def usage_producer(bootstrap: str) -> LoopProducer:
    """Nobody waits for a usage record but the end of its task, which has time: few, large requests."""
    return LoopProducer(bootstrap, linger_ms=100)


async def start(service: Service[WorkerSettings]) -> None:
    """Start order; the stop is the reverse."""
    settings = service.settings
    redis = Resp(settings.redis_url)
    await service.enter("redis", redis, ready=lambda: redis.connected)
    producer = await service.enter("kafka", usage_producer(settings.kafka_bootstrap))
    configuration = ConfigurationWatch(settings.redis_url, Snapshot.FromString)
    await service.enter("configuration", configuration, ready=lambda: configuration.current is not None)
    config_age.set_function(configuration.age_s)
    pool = await _pool(configuration, settings.pool)
    engine, prompts = await _engine(service, pool)
    frames = await service.enter("frames", FramedFramePublisher())

    log = RedisTokenLog(redis)
    tick = Tick(settings.tick_ms / 1000, settings.tick_max_ms / 1000)
    flusher = Flusher(log, frames, tick, lambda: service.loop_watch.busy)
    attach = Attach(partial(OwnerLookup(redis).find, settings.pool))
    worker = Worker(
        name=settings.name,
        pool=settings.pool,
        boot=service.boot,
        slots=settings.slots or pool.slots,
        to=Destinations(log, KafkaUsageLog(producer), await _answers(service)),
        engine=engine,
        prompts=prompts,
        flusher=flusher,
        patience=Patience(settings.first_token_s, settings.stall_s),
        heartbeat_s=settings.heartbeat_s,
        send=attach.send,
        reattach=attach.reattach,
        busy=lambda: service.loop_watch.busy,
    )
    configuration.subscribe(lambda snapshot: _resize(worker, settings, snapshot))
    await service.enter("engine", nullcontext(worker), ready=lambda: worker.engine_ready)
    service.spawn("flusher", flusher.run())
    service.spawn("tending", worker.tend())
    service.spawn("engine watch", worker.watch_engine())
    service.spawn("attach", attach.run(worker))
    service.on_drain(worker.drain)
    service.drainable = worker
    await service.enter("work", nullcontext(worker), ready=lambda: not worker.draining)


async def _answers(service: Service[WorkerSettings]) -> CacheAnswerStore | None:
    addresses = addresses_of(service.settings.cache_addresses)
    if not addresses:
        return None
    client = BatchedClient(addresses, method(cache_pb2, "Cache", "Store"))
    return CacheAnswerStore(await service.enter("cache", client))


async def _pool(configuration: ConfigurationWatch[Snapshot], name: str) -> Pool:
    """Wait until the configuration has the pool."""
    seen = asyncio.Event()
    configuration.subscribe(lambda snapshot: seen.set() if _find(snapshot, name) else None)
    await seen.wait()
    pool = _find(await configuration.wait(), name)
    assert pool is not None
    return pool


def _find(snapshot: Snapshot, name: str) -> Pool | None:
    return next((pool for pool in snapshot.pools if pool.name == name), None)


def _resize(worker: Worker, settings: WorkerSettings, snapshot: Snapshot) -> None:
    """Follow the pool's slots; a pool that was removed changes nothing for what runs."""
    if (pool := _find(snapshot, settings.pool)) and not settings.slots:
        worker.set_slots(pool.slots)


async def _engine(service: Service[WorkerSettings], pool: Pool) -> tuple[Engine, Prompts]:
    settings = service.settings
    if settings.engine == "simulator":
        pacing = Pacing(
            tokens_per_s=settings.simulator_tokens_per_s,
            prefill_tokens_per_s=settings.simulator_prefill_tokens_per_s,
            batch_slowdown=settings.simulator_slowdown,
            stall_s=settings.stall_s,
        )
        return SimulatorEngine(pacing), SimulatorPrompts()
    from services.worker.adapters.triton_engine import TritonEngine  # its libraries take a second to import

    prompts = AssetsPrompts(Path(settings.assets or pool.assets))
    engine = TritonEngine(
        settings.triton_address,
        pool.model,
        prompts,
        first_token_s=settings.first_token_s,
        between_tokens_s=settings.stall_s,
    )
    await service.enter("triton", engine)
    return engine, prompts


def main() -> None:
    """Run until told to stop."""
    run("worker", WorkerSettings, start)
