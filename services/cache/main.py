"""Wires the cache: Redis, the store, the servicer."""

from services.cache.adapters.redis_answer_cache import RedisAnswerCache
from services.cache.servicer import CacheServicer
from services.cache.settings import CacheSettings
from services.chassis.framed_server import framed_server
from services.chassis.lifecycle import Service, run
from services.chassis.resp import Resp


async def start(service: Service[CacheSettings]) -> None:
    """Start order; the stop is the reverse."""
    settings = service.settings
    redis = Resp(settings.redis_url, timeout_s=settings.redis_patience_s)
    await service.enter("redis", redis, ready=lambda: redis.connected)
    servicer = CacheServicer(RedisAnswerCache(redis), settings)
    await service.enter("calls", framed_server(settings.host, settings.port, servicer.methods))


def main() -> None:
    """Run until told to stop."""
    run("cache", CacheSettings, start)
