"""Workers are told to drain at their admin port, and asked how much they still have."""

import json
from types import TracebackType
from typing import Self

import aiohttp

from millrace_operator.core.desired import ADMIN_PORT

PATIENCE_S = 2.0


class WorkerDrains:
    """Calls pods by their addresses. Use as an async context manager."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def look(self, address: str) -> int | None:
        """How many tasks does it have? None: it cannot be asked."""
        return await self._ask("GET", address) if address else None

    async def begin(self, address: str) -> int | None:
        """Take nothing new, for a minute from now. How many tasks are left; None: it cannot be asked."""
        return await self._ask("POST", address)

    async def end(self, address: str) -> int | None:
        """Take work again."""
        return await self._ask("DELETE", address)

    async def _ask(self, verb: str, address: str) -> int | None:
        try:
            async with self._session.request(verb, f"http://{address}:{ADMIN_PORT}/drain") as answer:
                return int((await answer.json())["in_flight"]) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, KeyError, json.JSONDecodeError):
            return None
