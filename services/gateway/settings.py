"""What can be turned in a gateway."""

from typing import Annotated, Literal

import msgspec

from services.chassis.settings import ServiceSettings, setting


class GatewaySettings(ServiceSettings, frozen=True, kw_only=True):
    """Settings of one gateway process. `port` is that of HTTP and WebSocket."""

    port: Annotated[int, setting("HTTP and WebSocket, shared by several processes through SO_REUSEPORT.")] = 8080
    grpc_port: Annotated[int, setting("gRPC for clients.")] = 8081
    frames_port: Annotated[int, setting("Live frames from workers; each process has its own.")] = 8082
    frames_host: Annotated[str, setting("Host that workers dial for frames; empty: `host`. A pod's own address.")] = ""
    admin_port: Annotated[int, setting("Port of /healthz, /readyz and /metrics.")] = 9080
    name: Annotated[str, setting("Name of this process in `hello`; empty: made from its address.")] = ""
    limiter_addresses: Annotated[str, setting("Rate limiters, comma-separated host:port.")] = "127.0.0.1:8101"
    cache_addresses: Annotated[str, setting("Cache services, comma-separated; empty: no cache.")] = "127.0.0.1:8102"
    router_addresses: Annotated[str, setting("Routers, comma-separated host:port.")] = "127.0.0.1:8104"
    task_secret_file: Annotated[
        str, setting("File with the secret of task ids; the same in all gateways, or keys are not idempotent.")
    ] = ""
    websocket: Annotated[
        Literal["slim", "aiohttp"], setting("Who speaks WebSocket: our protocol, or aiohttp's as a fallback.")
    ] = "slim"
    max_in_flight: Annotated[
        int, setting("Unfinished tasks that one connection may read at once."), msgspec.Meta(ge=1)
    ] = 64
    max_frame_bytes: Annotated[
        int, setting("Largest WebSocket message from a client.", unit="B"), msgspec.Meta(ge=1024)
    ] = 256 * 1024
    high_water_bytes: Annotated[
        int, setting("Buffered for one slow client; beyond it text waits in the log.", unit="B"), msgspec.Meta(ge=1024)
    ] = 64 * 1024
    heartbeat_s: Annotated[
        float, setting("Longest silence on a connection; proxies cut at 30-60 s.", unit="s"), msgspec.Meta(gt=0)
    ] = 20.0
    handshakes_per_s: Annotated[
        float, setting("New connections and logins per address, before authentication.", unit="1/s"), msgspec.Meta(gt=0)
    ] = 200.0
    handshake_burst: Annotated[
        float, setting("Of them at once; a load test or an office behind one address needs many."), msgspec.Meta(ge=1)
    ] = 20_000.0
    limiter_budget_s: Annotated[
        float, setting("Longest wait for the limiter; then this gateway limits by itself.", unit="s")
    ] = 0.1
    cache_budget_s: Annotated[
        float,
        setting("Longest wait for the cache, then it is a miss: a crowd of twins costs the engine more.", unit="s"),
    ] = 0.25
    accept_s: Annotated[
        float,
        setting("Longest wait for the commit of a task; then `unavailable`, and the same key finds out.", unit="s"),
    ] = 5.0
    seen_retention_s: Annotated[float, setting("How long an answer is kept that its client confirmed.", unit="s")] = (
        30.0
    )
