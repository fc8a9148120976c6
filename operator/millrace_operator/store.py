"""What the API server holds, as the watches last told it. The only source of the operator's decisions about objects."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias

Key: TypeAlias = tuple[str, str]  # namespace (empty for cluster-scoped kinds), name
Object: TypeAlias = Mapping[str, Any]  # as in JSON
Seen: TypeAlias = Callable[[str, Key], None]

OURS: Final = ("WorkerPool", "ModelRoute", "Tenant", "LimitPolicy")


def key_of(body: Object) -> Key:
    """Namespace and name.

    >>> key_of({"metadata": {"name": "a", "namespace": "b"}})
    ('b', 'a')
    """
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Store:
    """Objects by kind and key. `listed` is set once every watched kind was read as a whole.

    `digests`: of the schemas that the cluster serves, by kind, as `Cluster.digests` told last; None: it did not yet.
    """

    def __init__(self, kinds: Collection[str]) -> None:
        self._objects: dict[str, dict[Key, Object]] = {kind: {} for kind in kinds}
        self._listeners: list[tuple[frozenset[str], Seen]] = []
        self._unlisted = set(kinds)
        self.listed = asyncio.Event()
        self.digests: Mapping[str, str] | None = None

    def all(self, kind: str) -> Mapping[Key, Object]:
        """Every object of a kind."""
        return self._objects[kind]

    def get(self, kind: str, key: Key) -> Object | None:
        """One object; None: it is not there."""
        return self._objects[kind].get(key)

    def put(self, kind: str, body: Object) -> None:
        """It came or changed; what is not newer than what is known changes nothing."""
        key = key_of(body)
        known = self._objects[kind].get(key)
        if known is not None and known["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]:
            return
        self._objects[kind][key] = body
        self._tell(kind, key)

    def drop(self, kind: str, key: Key) -> None:
        """It went."""
        if self._objects[kind].pop(key, None) is not None:
            self._tell(kind, key)

    def replace(self, kind: str, bodies: Collection[Object]) -> None:
        """All that there are of a kind: a watch may have missed that others went."""
        there = {key_of(body) for body in bodies}
        for key in tuple(self._objects[kind]):
            if key not in there:
                self.drop(kind, key)
        for body in bodies:
            self.put(kind, body)
        self._unlisted.discard(kind)
        if not self._unlisted:
            self.listed.set()

    def subscribe(self, kinds: Collection[str], seen: Seen) -> None:
        """Call `seen(kind, key)` whenever an object of these kinds came, changed or went."""
        self._listeners.append((frozenset(kinds), seen))

    def _tell(self, kind: str, key: Key) -> None:
        for kinds, seen in self._listeners:
            if kind in kinds:
                seen(kind, key)
