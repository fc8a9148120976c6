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
    """Objects by kind and key, from a watch that tells of each change in its order, if late, and from lists of whole kinds.

    `listed` is set once every watched kind was read as a whole.
    `digests`: of the schemas that the cluster serves, by kind, as `Cluster.digests` told last; None: it did not yet.
    """

    def __init__(self, kinds: Collection[str]) -> None:
        self._objects: dict[str, dict[Key, Object]] = {kind: {} for kind in kinds}
        self._listeners: list[tuple[frozenset[str], Seen]] = []
        self._unlisted = set(kinds)
        self._told: dict[str, set[Key]] = {kind: set() for kind in kinds}  # by the watch, since a list was begun
        self.listed = asyncio.Event()
        self.digests: Mapping[str, str] | None = None

    def all(self, kind: str) -> Mapping[Key, Object]:
        """Every object of a kind."""
        return self._objects[kind]

    def get(self, kind: str, key: Key) -> Object | None:
        """One object; None: it is not there."""
        return self._objects[kind].get(key)

    def put(self, kind: str, body: Object) -> None:
        """The watch told that it came or changed; what is not newer than what is known changes nothing."""
        key = key_of(body)
        self._told[kind].add(key)
        known = self._objects[kind].get(key)
        if known is None or not _is_older(body, known):
            self._set(kind, key, body)

    def drop(self, kind: str, body: Object) -> None:
        """The watch told that it went. `body`: as it was at its end."""
        key = key_of(body)
        self._told[kind].add(key)
        known = self._objects[kind].get(key)
        if known is not None and not _is_older(body, known):
            self._set(kind, key, None)

    def begin(self, kind: str) -> None:
        """A kind is going to be read as a whole, for `replace`."""
        self._told[kind].clear()

    def replace(self, kind: str, bodies: Collection[Object]) -> None:
        """All that there were of a kind: a watch may have missed that others went.

        The list is believed whatever its versions are, but not about objects of which the watch told since `begin`: what it
        told may be newer, and if it is not, the rest is on its way.
        """
        gone: dict[Key, None] = dict.fromkeys(self._objects[kind])
        for key, body in (gone | {key_of(body): body for body in bodies}).items():
            if key not in self._told[kind]:
                self._set(kind, key, body)
        self._unlisted.discard(kind)
        if not self._unlisted:
            self.listed.set()

    def subscribe(self, kinds: Collection[str], seen: Seen) -> None:
        """Call `seen(kind, key)` whenever an object of these kinds came, changed or went."""
        self._listeners.append((frozenset(kinds), seen))

    def _set(self, kind: str, key: Key, body: Object | None) -> None:
        objects = self._objects[kind]
        known = objects.get(key)
        if body is None:
            objects.pop(key, None)
        else:
            objects[key] = body
        if (known and _version(known)) == (body and _version(body)):
            return
        for kinds, seen in self._listeners:
            if kind in kinds:
                seen(kind, key)


def _version(body: Object) -> str:
    version: str = body["metadata"]["resourceVersion"]
    return version


def _is_older(one: Object, other: Object) -> bool:
    """By versions of the same kind, which are numbers (documented since Kubernetes 1.35); of others nothing is known."""
    versions = _version(one), _version(other)
    return all(version.isdecimal() for version in versions) and int(versions[0]) < int(versions[1])
