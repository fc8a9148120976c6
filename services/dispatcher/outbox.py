"""What waits to be sent on one stream."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from services.chassis.framing import FramedConnection
from services.chassis.gather import Gather

T = TypeVar("T")


class Outbox(Gather[T]):
    """Items for one peer, packed into messages every `gap_s` at most.

    Never full: what it may hold is bounded by what its writers promise (credits, one signal).
    """

    def __init__(
        self, connection: FramedConnection, pack: Callable[[list[T]], Iterable[bytes]], gap_s: float = 0.0
    ) -> None:
        self._connection = connection
        super().__init__(lambda items: self._write(pack(items)), gap_s)

    def close(self) -> None:
        """No message after those that wait."""
        self.flush()
        self._connection.close()

    def _write(self, messages: Iterable[bytes]) -> None:
        for message in messages:
            self._connection.send(message)
