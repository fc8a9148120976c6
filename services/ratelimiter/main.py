"""Wires the rate limiter: Redis, the store, the servicer."""

from services.chassis.framed_server import framed_server
from services.chassis.lifecycle import Service, run
from services.chassis.resp import Resp
from services.ratelimiter.adapters.redis_bucket_store import RedisBucketStore
from services.ratelimiter.servicer import RateLimiterServicer
from services.ratelimiter.settings import RateLimiterSettings


async def start(service: Service[RateLimiterSettings]) -> None:
    """Start order; the stop is the reverse."""
    settings = service.settings
    redis = Resp(settings.redis_url, timeout_s=settings.redis_patience_s)
    await service.enter("redis", redis, ready=lambda: redis.connected)
    servicer = RateLimiterServicer(RedisBucketStore(redis))
    await service.enter("calls", framed_server(settings.host, settings.port, servicer.methods))


def main() -> None:
    """Run until told to stop."""
    run("ratelimiter", RateLimiterSettings, start)
