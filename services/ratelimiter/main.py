"""Wires the rate limiter: Redis, the store, the servicer."""

from millrace.limits.v1.limits_pb2_grpc import add_RateLimiterServicer_to_server
from services.chassis.grpc_server import grpc_server
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
    server = await service.enter(
        "grpc",
        grpc_server(
            settings.host,
            settings.port,
            lambda server: add_RateLimiterServicer_to_server(servicer, server),  # type: ignore[no-untyped-call]
            ["millrace.limits.v1.RateLimiter"],
        ),
    )

    async def leave(_: float) -> None:
        await server.set_serving(serving=False)

    service.on_drain(leave)


def main() -> None:
    """Run until told to stop."""
    run("ratelimiter", RateLimiterSettings, start)
