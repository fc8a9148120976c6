"""HTTP and server-sent events, on httpx."""

import contextlib
import functools
import ssl
from collections.abc import AsyncGenerator
from typing import Any, cast

import httpx
import msgspec

from services.client.adapters.objects import event_of
from services.client.core.events import Ack, Done, Event, TaskView
from services.client.errors import LostError, MillraceError, refusal
from services.client.ports import Request

_SILENCE_S = 60.0  # a waiting stream carries something each heartbeat (20 s)
_CONNECT_S = 5.0

_decode_ack = msgspec.json.Decoder(Ack).decode
_decode_view = msgspec.json.Decoder(TaskView).decode


@functools.cache
def _trust() -> ssl.SSLContext:
    """One for all clients: to read the certificates takes some 30 ms."""
    return httpx.create_ssl_context(trust_env=False)


class HttpTransport:
    """A `Transport`: `POST /v1/tasks`, then `GET /v1/tasks/{id}/stream` from a cursor."""

    def __init__(self, key: str) -> None:
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=None),
            verify=_trust(),
            trust_env=False,
        )

    async def stream(self, address: str, request: Request) -> AsyncGenerator[Event, None]:
        """Submit, then read."""
        fields = {name: value for name, value in request.items() if name != "key"}
        answer = await self._call("POST", f"{address}/v1/tasks", fields, {"Idempotency-Key": request["key"]})
        ack = _decode_ack(msgspec.json.encode({"t": "ack", **msgspec.json.decode(answer)}))
        yield ack
        async with contextlib.aclosing(self.watch(address, ack.task, "", 0)) as events:
            async for event in events:
                yield event

    async def watch(self, address: str, task: str, gen: str, offset: int) -> AsyncGenerator[Event, None]:
        """Read from a cursor; the lines of server-sent events that matter are those of `data:`."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": f"{gen}:{offset}"} if gen else {})
        try:
            async with self._client.stream("GET", f"{address}/v1/tasks/{task}/stream", headers=headers) as response:
                if response.is_error:
                    raise _refusal(response, await response.aread())
                async with contextlib.aclosing(cast(AsyncGenerator[str, None], response.aiter_lines())) as lines:
                    async for line in lines:
                        event = event_of(line[5:]) if line.startswith("data:") else None
                        if event is not None:
                            yield event
                        if isinstance(event, Done):
                            return
        except httpx.TransportError as broken:
            raise LostError(f"{address}: {broken!r}") from broken
        raise LostError(f"{address}: the stream ended before the answer did")

    async def get(self, address: str, task: str) -> TaskView:
        """A task as it is now."""
        return _decode_view(await self._call("GET", f"{address}/v1/tasks/{task}"))

    async def cancel(self, address: str, task: str) -> str:
        """Wish a task's end."""
        answer = await self._call("DELETE", f"{address}/v1/tasks/{task}")
        return str(msgspec.json.decode(answer)["state"])

    async def close(self) -> None:
        """Close the pool of connections."""
        await self._client.aclose()

    async def _call(
        self, method: str, url: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        try:
            response = await self._client.request(method, url, json=body, headers=headers)
        except httpx.TransportError as broken:
            raise LostError(f"{url}: {broken!r}") from broken
        if response.is_error:
            raise _refusal(response, response.content)
        return response.content


class _Refused(msgspec.Struct):
    """The `error` of an HTTP answer; what OpenAI's shape adds is ignored."""

    code: str = "internal"
    message: str = ""
    retryable: bool = False
    retry_after_s: float | None = None
    field: str | None = None
    param: str | None = None


class _Body(msgspec.Struct):
    error: _Refused


def _refusal(response: httpx.Response, content: bytes) -> MillraceError:
    """The coded error of an answer. One without a code did not come from a gateway: something before it has no backend."""
    after = response.headers.get("Retry-After", "")
    retry_after_s = float(after) if after.replace(".", "", 1).isdigit() else None
    try:
        e = msgspec.json.decode(content, type=_Body).error
    except msgspec.DecodeError:
        status = f"HTTP {response.status_code}"
        if response.is_server_error:
            return refusal("unavailable", status, retryable=True, retry_after_s=retry_after_s)
        return refusal("internal", status)
    return refusal(
        e.code,
        e.message,
        retryable=e.retryable,
        retry_after_s=e.retry_after_s if e.retry_after_s is not None else retry_after_s,
        field=e.field or e.param or "",
    )
