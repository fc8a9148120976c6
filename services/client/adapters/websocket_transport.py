"""One WebSocket per answer, on the `websockets` library; single questions go by HTTP."""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from services.client.adapters.http_transport import HttpTransport
from services.client.adapters.objects import event_of
from services.client.core.events import Done, Event, TaskView
from services.client.errors import LostError, MillraceError, refusal
from services.client.ports import Request

_PROTOCOL = Subprotocol("millrace.v1")
_OPEN_S = 5.0
_UNAUTHENTICATED_CLOSE = 4401
_CODES = {401: "unauthenticated", 403: "forbidden", 429: "limited"}


class WebSocketTransport:
    """A `Transport`: `submit` and `resume` on `/v1/ws`."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._http = HttpTransport(key)

    def stream(self, address: str, request: Request) -> AsyncGenerator[Event, None]:
        """Submit, then read on the same connection."""
        return self._talk(address, {"t": "submit", **request})

    def watch(self, address: str, task: str, gen: str, offset: int) -> AsyncGenerator[Event, None]:
        """Read from a cursor."""
        return self._talk(address, {"t": "resume", "task": task, "gen": gen, "offset": offset})

    async def get(self, address: str, task: str) -> TaskView:
        """A task as it is now."""
        return await self._http.get(address, task)

    async def cancel(self, address: str, task: str) -> str:
        """Wish a task's end."""
        return await self._http.cancel(address, task)

    async def close(self) -> None:
        """Close the HTTP side."""
        await self._http.close()

    async def _talk(self, address: str, first: dict[str, Any]) -> AsyncGenerator[Event, None]:
        try:
            async with connect(
                f"ws{address.removeprefix('http')}/v1/ws",
                additional_headers={"Authorization": f"Bearer {self._key}"},
                subprotocols=[_PROTOCOL],
                compression=None,
                open_timeout=_OPEN_S,
                close_timeout=1,
                max_size=None,
                proxy=None,
            ) as connection:
                await connection.send(msgspec.json.encode(first), text=True)
                while True:
                    event = event_of(await connection.recv())
                    if event is not None:
                        yield event
                    if isinstance(event, Done):
                        return
        except InvalidStatus as refused:
            raise _handshake(refused) from refused
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code == _UNAUTHENTICATED_CLOSE:
                raise refusal("unauthenticated", closed.rcvd.reason) from closed
            raise LostError(f"{address}: {closed}") from closed
        except (OSError, TimeoutError, InvalidHandshake) as broken:
            if isinstance(broken, LostError):
                raise
            raise LostError(f"{address}: {broken!r}") from broken


def _handshake(refused: InvalidStatus) -> MillraceError:
    response = refused.response
    after = response.headers.get("Retry-After", "")
    return refusal(
        _CODES.get(response.status_code, "unavailable" if response.status_code >= 500 else "internal"),
        f"HTTP {response.status_code}: {(response.body or b'')[:200].decode(errors='replace')}",
        retryable=response.status_code >= 500 or response.status_code == 429,
        retry_after_s=float(after) if after.isdigit() else None,
    )
