"""The asynchronous client: one task, any transport, read on through any break."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

from services.chassis.backoff import backoff
from services.client.adapters.grpc_transport import GrpcTransport
from services.client.adapters.http_transport import HttpTransport
from services.client.adapters.websocket_transport import WebSocketTransport
from services.client.core.cursor import GapError, ReaderCursor
from services.client.core.events import Ack, Delta, Done, Event, Restarted, TaskView
from services.client.errors import LostError, MillraceError, TaskEndedError, UnavailableError
from services.client.ports import Request, Transport

Way: TypeAlias = Literal["ws", "sse", "grpc"]
Input: TypeAlias = str | Sequence[dict[str, str]]
"""One user message, or the turns of a chat: `{"role": "user", "content": "..."}`."""

_TRANSPORTS: dict[str, type[WebSocketTransport | HttpTransport | GrpcTransport]] = {
    "ws": WebSocketTransport,
    "sse": HttpTransport,
    "grpc": GrpcTransport,
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to try again. A try that brought anything new starts the count afresh."""

    tries: int = 10
    first_s: float = 0.05
    longest_s: float = 5.0
    longest_retry_after_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    task: str
    text: str
    done: Done


class Client:
    """Talks to one or several gateways of a platform; any of them serves any task.

        async with Client("http://127.0.0.1:8080", key) as client:
            async for event in client.stream("Once upon a time", model="tiny", max_tokens=64):
                match event:
                    case Ack(task=task):  print("accepted as", task)
                    case Delta(text=text):  print(text, end="")
                    case Restarted():  print("(again from the start)")
                    case Done(timings=t):  print(f"first token after {t.ttft_s:.2f} s")

    `addresses` are base URLs, for gRPC `host:port`. `transport` is `ws`, `sse` or `grpc`. Options of a submission are
    the fields of `submit`: `model`, `max_tokens`, `temperature`, `top_p`, `seed`, `stop`, `priority` (the class),
    `cache`, `deadline_s`, `on_disconnect`, `metadata`, `key` (for idempotency; made here if missing, so that a retry
    can never run a prompt twice).

    On a broken connection every method goes on from where it was, at the next address, after a jittered delay. Errors are
    the classes of `services.client.errors`; UnavailableError is raised when patience ends.
    """

    def __init__(
        self, addresses: str | Sequence[str], key: str, *, transport: Way = "ws", patience: Patience | None = None
    ) -> None:
        known = [addresses] if isinstance(addresses, str) else list(addresses)
        self._addresses = itertools.cycle([address.rstrip("/") for address in known])
        self._address = next(self._addresses)
        self._transport: Transport = _TRANSPORTS[transport](key)
        self._patience = patience or Patience()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close what is open."""
        await self._transport.close()

    async def submit(self, prompt: Input, *, model: str = "tiny", **options: Any) -> Ack:
        """Hand a prompt in and return once it is accepted; it runs on whether or not anybody reads it."""
        events = self.stream(prompt, model=model, **options)
        try:
            async for event in events:
                if isinstance(event, Ack):
                    return event
        finally:
            await events.aclose()
        raise AssertionError("a stream begins with its acknowledgment")

    def stream(self, prompt: Input, *, model: str = "tiny", **options: Any) -> AsyncGenerator[Event, None]:
        """Hand a prompt in and read it to its end: `Ack`, `Status`, `Delta`, `Restarted`, at last `Done`."""
        return self._read("", ReaderCursor(), _request(prompt, model, options))

    def watch(self, task: str, gen: str = "", offset: int = 0) -> AsyncGenerator[Event, None]:
        """Read a task from a cursor to its end; a cursor is the (`gen`, `offset`) of the last delta seen."""
        return self._read(task, ReaderCursor(gen, offset), {})

    async def generate(self, prompt: Input, *, model: str = "tiny", **options: Any) -> Answer:
        """The whole answer. Raises TaskEndedError, with the text so far, when the task ends without one."""
        task, pieces = "", list[str]()
        async with contextlib.aclosing(self.stream(prompt, model=model, **options)) as events:
            async for event in events:
                match event:
                    case Ack():
                        task = event.task
                    case Delta(text=text):
                        pieces.append(text)
                    case Restarted():
                        pieces.clear()
                    case Done(error=error) if error is not None or event.outcome != "completed":
                        code = error.code if error else event.outcome
                        message = error.message if error else f"the task is {event.outcome}"
                        retryable = error.retryable if error else False
                        raise TaskEndedError(message, code=code, task=task, text="".join(pieces), retryable=retryable)
                    case Done():
                        return Answer(task, "".join(pieces), event)
        raise AssertionError("a stream ends with Done")

    async def get(self, task: str) -> TaskView:
        """A task as it is now, with the text so far."""
        tries = _Tries(self._patience)
        while True:
            try:
                return await self._transport.get(self._address, task)
            except (LostError, MillraceError) as broken:
                await self._wait(tries, broken)

    async def cancel(self, task: str) -> str:
        """Wish a task's end; returns its state, which becomes `cancelled` unless the task was faster."""
        tries = _Tries(self._patience)
        while True:
            try:
                return await self._transport.cancel(self._address, task)
            except (LostError, MillraceError) as broken:
                await self._wait(tries, broken)

    async def _read(self, task: str, cursor: ReaderCursor, request: Request) -> AsyncGenerator[Event, None]:
        """One connection after the other: submit until the task is known, then go on from the cursor."""
        tries = _Tries(self._patience)
        while True:
            if task:
                events = self._transport.watch(self._address, task, cursor.gen, cursor.offset)
            else:
                events = self._transport.stream(self._address, request)
            try:
                async with contextlib.aclosing(events):
                    async for event in events:
                        new = cursor.take(event)
                        if new is None:
                            continue
                        tries.succeeded()
                        task = new.task
                        yield new
                        if isinstance(new, Done):
                            return
            except (LostError, GapError, MillraceError) as broken:
                await self._wait(tries, broken)

    async def _wait(self, tries: "_Tries", broken: LostError | GapError | MillraceError) -> None:
        """Move to the next address when its turn has come, or raise what ends the trying."""
        delay = tries.failed(broken)
        self._address = next(self._addresses)
        await asyncio.sleep(delay)


class _Tries:
    """The count of failures in a row, and how long to wait after each."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0
        self._delays: Iterator[float] = iter(())
        self.succeeded()

    def succeeded(self) -> None:
        """Something new came."""
        self._failures = 0
        self._delays = backoff(self._patience.first_s, self._patience.longest_s)

    def failed(self, broken: LostError | GapError | MillraceError) -> float:
        """Seconds to wait before the next try. Raises what is final: a refusal that no retry mends, or patience's end."""
        self._failures += 1
        asked = 0.0
        if isinstance(broken, MillraceError):
            asked = broken.retry_after_s or 0.0
            if not broken.retryable or asked > self._patience.longest_retry_after_s or self._exhausted:
                raise broken
        elif self._exhausted:
            raise UnavailableError(
                f"{self._failures} tries failed, the last with: {broken}", retryable=True
            ) from broken
        if isinstance(broken, LostError):
            asked = broken.reconnect_in_s or 0.0
        return asked + next(self._delays)

    @property
    def _exhausted(self) -> bool:
        return self._failures >= self._patience.tries


def _request(prompt: Input, model: str, options: dict[str, Any]) -> Request:
    fields = {"key": secrets.token_hex(16), "model": model, "input": prompt, **options}
    if "priority" in fields:
        fields["class"] = fields.pop("priority")
    return {name: value for name, value in fields.items() if value is not None}
