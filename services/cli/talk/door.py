"""Which gateways to talk to, and with which key."""

from enum import StrEnum
from pathlib import Path

from services.cli.stack.handle import Stack
from services.client import SyncClient


class Way(StrEnum):
    """A transport of the client."""

    WS = "ws"
    SSE = "sse"
    GRPC = "grpc"


def client_of(data: Path, url: str, key: str, way: Way) -> SyncClient:
    """A client of the addresses in `url` (comma-separated), by default of the stack in `data`, whose key it takes too.

    Raises StackError when something must come from the stack and none runs.
    """
    addresses = [address for address in url.split(",") if address]
    if not addresses or not key:
        status = Stack(data).status
        addresses = addresses or _gateways(status.addresses("gateway", "grpc" if way is Way.GRPC else "http"), way)
        key = key or status.key
    return SyncClient(addresses, key, transport=way.value)


def _gateways(addresses: list[str], way: Way) -> list[str]:
    return addresses if way is Way.GRPC else [f"http://{address}" for address in addresses]
