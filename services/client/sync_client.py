"""The same client for programs without an event loop: it runs the asynchronous one in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from typing import Any, Self, TypeVar

from services.client.client import Answer, Client, Input, Patience, Way
from services.client.core.events import Ack, Event, TaskView

T = TypeVar("T")


class SyncClient:
    """`Client` with plain calls and plain iterators; see there for arguments and errors. Safe to share between threads.

    with SyncClient("http://127.0.0.1:8080", key) as client:
        print(client.generate("Once upon a time", model="tiny").text)
    """

    def __init__(
        self, addresses: str | Sequence[str], key: str, *, transport: Way = "ws", patience: Patience | None = None
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="millrace client", daemon=True)
        self._thread.start()

        async def make() -> Client:
            return Client(addresses, key, transport=transport, patience=patience)

        self._client = self._run(make())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the client and end its thread; streams that nobody reads to their end are closed with it."""

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._loop.shutdown_asyncgens()
            await self._client.close()
            await asyncio.sleep(0)  # closed transports let go of their sockets in the loop's next turn

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, prompt: Input, *, model: str = "tiny", **options: Any) -> Ack:
        """As `Client.submit`."""
        return self._run(self._client.submit(prompt, model=model, **options))

    def stream(self, prompt: Input, *, model: str = "tiny", **options: Any) -> Generator[Event, None, None]:
        """As `Client.stream`."""
        return self._iterate(self._client.stream(prompt, model=model, **options))

    def watch(self, task: str, gen: str = "", offset: int = 0) -> Generator[Event, None, None]:
        """As `Client.watch`."""
        return self._iterate(self._client.watch(task, gen, offset))

    def generate(self, prompt: Input, *, model: str = "tiny", **options: Any) -> Answer:
        """As `Client.generate`."""
        return self._run(self._client.generate(prompt, model=model, **options))

    def get(self, task: str) -> TaskView:
        """As `Client.get`."""
        return self._run(self._client.get(task))

    def cancel(self, task: str) -> str:
        """As `Client.cancel`."""
        return self._run(self._client.cancel(task))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _iterate(self, events: AsyncGenerator[Event, None]) -> Generator[Event, None, None]:
        async def following() -> Event | None:
            return await anext(events, None)

        try:
            while (event := self._run(following())) is not None:
                yield event
        finally:
            if not self._loop.is_closed():
                self._run(events.aclose())
