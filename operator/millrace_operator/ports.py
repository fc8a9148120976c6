"""What the operator asks of the API server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from millrace_operator.store import Key, Object

MANAGER: Final = "millrace-operator"
SCALER: Final = "millrace-operator-scale"  # owns replicas, so that an apply of a template never moves them


class ApiError(Exception):
    """The API server did not do it: it is away (`status` 0), or it refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cluster(Protocol):
    """Writes, all of them level-triggered: who fails tries again with the state of then. Raises ApiError.

    `kind` is one of those that `adapters/kube_cluster.py` lists.
    """

    async def list(self, kind: str) -> Sequence[Object]:
        """All objects of a kind that this operator watches."""
        ...

    async def get(self, kind: str, key: Key) -> Object | None:
        """One object, read from the server; None: it is not there."""
        ...

    async def create(self, manifest: Object) -> Object:
        """Create. 409: it is there already."""
        ...

    async def replace(self, manifest: Object) -> Object:
        """Write the whole object, if it is still at its resourceVersion; 409 if not."""
        ...

    async def apply(self, manifest: Object, *, manager: str = MANAGER, force: bool = False) -> Object:
        """Server-side apply as one of our field managers. Without force a conflict with another one is a refusal (409)."""
        ...

    async def apply_status(self, kind: str, key: Key, status: Mapping[str, Any]) -> None:
        """The whole status of an object of ours; an object that went meanwhile is no error."""
        ...

    async def patch(self, kind: str, key: Key, patch: Object) -> None:
        """A JSON merge patch; an object that went meanwhile is no error."""
        ...

    async def scale(self, kind: str, key: Key, replicas: int) -> None:
        """Set the replicas by the scale subresource."""
        ...

    async def digests(self) -> Mapping[str, str]:
        """The schema digests of our custom resource definitions, by kind: "" without one, and no entry for a kind not served."""
        ...

    async def event(self, about: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell people, where `kubectl describe` shows it."""
        ...


class Drains(Protocol):
    """How workers are told to finish what they have. None: the worker cannot be asked."""

    async def look(self, address: str) -> int | None:
        """How many tasks does it have?"""
        ...

    async def begin(self, address: str) -> int | None:
        """Take nothing new, for a minute from now; how many tasks are left?"""
        ...

    async def end(self, address: str) -> int | None:
        """Take work again."""
        ...


class Signals(Protocol):
    """What the dispatchers say of the pools."""

    def latest(self, pool: str) -> "Signal | None":
        """The last word about a pool; None: there was none."""
        ...


@dataclass(frozen=True, slots=True)
class Signal:
    """A pool's work. `age_s`: since it was said."""

    age_s: float
    epoch: int
    waiting: int  # tasks
    work_s: float  # of one slot, that wait
    busy: int  # slots
    service_s: float
    arrived: int  # tasks under this epoch
    ended: int  # tasks that service_s was learned from
    dead: int = 0  # tasks given up under this epoch
    last_dead_at: float = float("-inf")  # Unix s; -inf: none was
