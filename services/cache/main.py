"""Wires the cache: Redis, the store, the servicer."""

from millrace.cache.v1.cache_pb2_grpc import add_CacheServicer_to_server
from services.cache.adapters.redis_answer_cache import RedisAnswerCache
from services.cache.servicer import CacheServicer
from services.cache.settings import CacheSettings
from services.chassis.grpc_server import grpc_server
from services.chassis.lifecycle import Service, run
from services.chassis.resp import Resp


async def start(service: Service[CacheSettings]) -> None:
    """Start order; the stop is the reverse."""
    settings = service.settings
    redis = Resp(settings.redis_url, timeout_s=settings.redis_patience_s)
    await service.enter("redis", redis, ready=lambda: redis.connected)
    servicer = CacheServicer(RedisAnswerCache(redis), settings)
    server = await service.enter(
        "grpc",
        grpc_server(
            settings.host,
            settings.port,
            lambda server: add_CacheServicer_to_server(servicer, server),  # type: ignore[no-untyped-call]
            ["millrace.cache.v1.Cache"],
        ),
    )

    async def leave(_: float) -> None:
        await server.set_serving(serving=False)

    service.on_drain(leave)


def main() -> None:
    """Run until told to stop."""
    run("cache", CacheSettings, start)
