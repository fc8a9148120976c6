"""A gRPC server with health and reflection."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

OPTIONS = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
]


@dataclass(frozen=True, slots=True)
class GrpcServer:
    """A running server."""

    port: int
    _health: HealthServicer
    _services: tuple[str, ...]

    async def set_serving(self, serving: bool) -> None:
        """What the standard health service answers, for the server as a whole and each of its services."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._services):
            await self._health.set(name, status)


@asynccontextmanager
async def grpc_server(
    host: str,
    port: int,
    register: Callable[[grpc.aio.Server], None],
    services: Sequence[str],
    *,
    grace_s: float = 2.0,
) -> AsyncIterator[GrpcServer]:
    """Serve until the context ends. `register` adds the servicers, `services` are their full names.

    Raises OSError when the port is taken. Port 0 takes a free one.
    """
    server = grpc.aio.server(options=OPTIONS)
    register(server)
    checks = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as reason:
        raise OSError(f"cannot listen on {host}:{port}: {reason}") from None
    await server.start()
    running = GrpcServer(bound, checks, tuple(services))
    await running.set_serving(serving=True)
    try:
        yield running
    finally:
        await checks.enter_graceful_shutdown()
        await server.stop(grace_s)
