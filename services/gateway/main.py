"""Wires the gateway: Redis, limiter, cache and router, signals, frames, gRPC, HTTP."""

import asyncio
import contextlib
from pathlib import Path

from millrace.cache.v1 import cache_pb2
from millrace.cache.v1.cache_pb2 import LookupReply, StoreReply
from millrace.config.v1.config_pb2 import Snapshot
from millrace.inference.v1.inference_pb2_grpc import add_InferenceServicer_to_server
from millrace.limits.v1 import limits_pb2
from millrace.limits.v1.limits_pb2 import CheckReply
from millrace.router.v1 import router_pb2
from millrace.router.v1.router_pb2 import AcceptReply
from services.chassis.batched import BatchedClient, addresses_of
from services.chassis.clock import monotonic
from services.chassis.configuration import ConfigurationWatch
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.framed_server import framed_server
from services.chassis.framing import method
from services.chassis.grpc_server import grpc_server
from services.chassis.lifecycle import Service, run
from services.chassis.metrics import config_age
from services.chassis.resp import RedisAwayError, Resp
from services.gateway.adapters.batched_call import batched_call
from services.gateway.adapters.redis_presence import RedisPresence
from services.gateway.adapters.redis_ticket_store import RedisTicketStore
from services.gateway.assembly import Gateway, World
from services.gateway.core.identity import Directory
from services.gateway.grpc import servicer
from services.gateway.http.server import http_server
from services.gateway.reading.frames_servicer import frames_methods
from services.gateway.settings import GatewaySettings
from services.gateway.websocket.aiohttp_connection import serve_aiohttp
from services.gateway.websocket.gc_policy import GcPolicy
from services.gateway.websocket.slim_connection import SlimServer
from services.pools.owner_lookup import OwnerLookup
from services.pools.signals_listener import SignalsListener
from services.tasklog.adapters.redis_task_control import RedisTaskControl
from services.tasklog.adapters.redis_token_log import RedisTokenLog

RECONNECT_S = 3.0  # clients of a gateway that leaves come back within this time, not all at once
LIVE_S = 1.0
# A prompt goes to limiter, cache and router in turn. The limiter's client gathers for GAP_S; each after it has a shorter gap.
LOOKUP_GAP_S = 0.007
ACCEPT_GAP_S = 0.005
LAST_WORDS_S = 0.5  # of a drain: to tell those who still wait that they must ask elsewhere


async def start(service: Service[GatewaySettings]) -> None:
    """Start order; the stop is the reverse."""
    settings = service.settings
    if not settings.task_secret_file:
        raise OSError("MILLRACE_GATEWAY__TASK_SECRET_FILE is not set; all gateways need the same secret of task ids")
    secret = Path(settings.task_secret_file).read_bytes().strip()  # noqa: ASYNC240 - nothing else runs yet

    redis = Resp(settings.redis_url)
    await service.enter("redis", redis, ready=lambda: redis.connected)
    watch = ConfigurationWatch(settings.redis_url, lambda raw: Directory(Snapshot.FromString(raw)))
    await service.enter("configuration", watch, ready=lambda: watch.current is not None)
    config_age.set_function(watch.age_s)
    caches = addresses_of(settings.cache_addresses)
    limiter = BatchedClient(addresses_of(settings.limiter_addresses), method(limits_pb2, "RateLimiter", "Check"))
    lookup = BatchedClient(caches, method(cache_pb2, "Cache", "Lookup"), LOOKUP_GAP_S)
    store = BatchedClient(caches, method(cache_pb2, "Cache", "Store"))
    routers = addresses_of(settings.router_addresses)
    router = BatchedClient(routers, method(router_pb2, "Router", "Accept"), ACCEPT_GAP_S)
    await service.enter("limiter", limiter)
    await service.enter("cache", lookup)
    await service.enter("cache's leads", store)
    await service.enter("router", router, ready=lambda: router.ready)

    gateway: Gateway | None = None
    frames = frames_methods(lambda boot, batch: gateway.readers.on_frames(boot, batch) if gateway else None)
    frames_server = await service.enter("frames", framed_server(settings.host, settings.frames_port, frames))
    address = f"{settings.frames_host or settings.host}:{frames_server.port}"
    signals = await service.enter("signals", SignalsListener(OwnerLookup(redis), address, service.boot))
    watch.subscribe(lambda directory: signals.follow(directory.pools))
    presence = RedisPresence(redis, service.boot)
    census = _Census(presence)
    policy = GcPolicy()
    slim = await service.enter("sessions", SlimServer(policy.accepted))

    def directory() -> Directory:
        if watch.current is None:
            raise ProblemError(Problem(ErrorCode.UNAVAILABLE, "no configuration was published yet", retry_after_s=1.0))
        return watch.current

    world = World(
        directory=directory,
        token_log=RedisTokenLog(redis),
        control=RedisTaskControl(redis),
        signals=signals,
        presence=presence,
        tickets=RedisTicketStore(redis),
        check=batched_call(limiter, CheckReply),
        accept=batched_call(router, AcceptReply),
        lookup=batched_call(lookup, LookupReply) if settings.cache_addresses else None,
        store=batched_call(store, StoreReply) if settings.cache_addresses else None,
        gateways=lambda: census.gateways,
        busy=lambda: service.loop_watch.busy,
    )
    gateway = Gateway(
        settings,
        world,
        secret=secret,
        address=address,
        boot=service.boot,
        serve_websocket=slim.serve if settings.websocket == "slim" else serve_aiohttp,
    )
    signals.on_status = gateway.places.on_status
    service.spawn("watchdog", gateway.readers.run_watchdog())
    service.spawn("census", census.run())
    inference = gateway.inference
    grpc_door = await service.enter(
        "grpc",
        grpc_server(
            settings.host,
            settings.grpc_port,
            lambda server: add_InferenceServicer_to_server(inference, server),  # type: ignore[no-untyped-call]
            [servicer.SERVICE],
        ),
    )
    http = await service.enter("http", http_server(gateway.app, settings.host, settings.port))

    async def leave(seconds: float) -> None:
        """Clients go elsewhere, requests are answered; tasks go on without this process."""
        http.stop_accepting()
        await grpc_door.set_serving(serving=False)
        gateway.leave(RECONNECT_S)
        ends = monotonic() + seconds - LAST_WORDS_S
        while (gateway.sessions.sessions or http.busy) and monotonic() < ends:  # noqa: ASYNC110 - aiohttp does not tell
            await asyncio.sleep(0.05)
        gateway.mailboxes.leave(all_of_them=True)
        await asyncio.sleep(LAST_WORDS_S if http.busy else 0)

    service.on_drain(leave)


class _Census:
    """How many gateways live, as often as Redis can be asked."""

    def __init__(self, presence: RedisPresence) -> None:
        self._presence = presence
        self.gateways = 1

    async def run(self) -> None:
        while True:
            with contextlib.suppress(RedisAwayError):
                self.gateways = await self._presence.gateways()
            await asyncio.sleep(LIVE_S)


def main() -> None:
    """Run until told to stop."""
    run("gateway", GatewaySettings, start)
