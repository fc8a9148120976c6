"""What the client needs from a transport: one try on one address. Resuming is the client's own business."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol, TypeAlias

from services.client.core.events import Event, TaskView

Request: TypeAlias = Mapping[str, Any]
"""The fields of `submit` (protocol.md 2), `key` always among them."""


class Transport(Protocol):
    """Every method raises LostError when the connection breaks or cannot be made, and MillraceError for a refusal.

    The two generators are one connection each: they end after `Done`, and closing them closes it.
    """

    def stream(self, address: str, request: Request) -> AsyncGenerator[Event, None]:
        """Submit, then read: `Ack` first."""
        ...

    def watch(self, address: str, task: str, gen: str, offset: int) -> AsyncGenerator[Event, None]:
        """Read a task from a cursor."""
        ...

    async def get(self, address: str, task: str) -> TaskView:
        """A task as it is now."""
        ...

    async def cancel(self, address: str, task: str) -> str:
        """Wish a task's end; returns its state."""
        ...

    async def close(self) -> None:
        """Close what is shared by the calls."""
        ...
