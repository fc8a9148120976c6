"""Which version of each resource is in force: one that is wrong never holds up the others.

`compile_snapshot` takes a set as a whole or refuses it. In a cluster many people write many objects, so of each the first
of these versions is chosen that compiles with the rest: the one that stands there, the one accepted last, and of a tenant
one without the models and keys that are not there. If none does, the resource is left out.

API keys stand in Secrets. One that goes does not take the tenant with it at once: the hashes that were found work on for
`KEEP_S`, so that a slip of the hand is no outage. What a person takes out of a Tenant, or a Tenant deleted, ends at once.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from millrace.config.v1.config_pb2 import Snapshot
from millrace_operator.core import schema as m
from millrace_operator.core.manifests import Flaw, Manifest, key_hash, read
from millrace_operator.core.reasons import Reason
from millrace_operator.core.snapshot import compile_snapshot

KEEP_S: Final = 3600.0

Identity: TypeAlias = tuple[str, str]  # kind, name
Document: TypeAlias = Mapping[str, Any]
TenantKey: TypeAlias = tuple[str, str]  # tenant, name of the key

_ORDER: Final = ("WorkerPool", "LimitPolicy", "ModelRoute", "Tenant")  # nobody names what comes after it


# -- API keys -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A key of a tenant, and the entry of a Secret where it stands (empty: the only one)."""

    tenant: str
    key: str
    secret: str
    entry: str


@dataclass(frozen=True, slots=True)
class Known:
    """A hash that was found. `until` (Unix s): its Secret is gone, and it works no longer than that."""

    digest: bytes
    until: float | None = None


def remember(
    known: Mapping[Place, Known],
    published: Mapping[TenantKey, bytes],
    tenants: Iterable[Document],
    secrets: Mapping[str, Document],
    now: float,
) -> dict[Place, Known]:
    """What is known of the keys that these tenants name. Keys, tenants and versions that nobody names are forgotten.

    `published`: hashes of the snapshot that an operator finds when it starts, for keys it has never seen itself.
    """
    found: dict[Place, Known] = {}
    for place in {place for tenant in tenants for place in _places(tenant)}:
        digest = digest_of(secrets, place)
        if isinstance(digest, bytes):
            found[place] = Known(digest)
            continue
        old = known.get(place)
        if old is None and (hashed := published.get((place.tenant, place.key))):
            old = Known(hashed)
        if old is not None:
            found[place] = old if old.until is not None else replace(old, until=now + KEEP_S)
    return {place: one for place, one in found.items() if one.until is None or one.until > now}


def digest_of(secrets: Mapping[str, Document], place: Place) -> bytes | str:
    """The hash of a key, or the rule that its Secret breaks."""
    document = secrets.get(place.secret)
    secret = None if document is None else read(Manifest("", 0, document))
    if not isinstance(secret, m.Secret):
        return f"there is no Secret `{place.secret}`"
    entries = secret.entries()
    value = next(iter(entries.values())) if not place.entry and len(entries) == 1 else entries.get(place.entry, "")
    return key_hash(value) or "names no entry that is an API key or its SHA-256"


def secrets_of(tenants: Iterable[Document]) -> set[str]:
    """Names of the Secrets that tenants name."""
    return {place.secret for tenant in tenants for place in _places(tenant)}


def _places(document: Document) -> Iterator[Place]:
    tenant = read(Manifest("", 0, document))
    if isinstance(tenant, m.Tenant):
        for key in tenant.spec.keys:
            if key.secret_ref is not None:
                yield Place(tenant.metadata.name, key.name, key.secret_ref.name, key.secret_ref.key or "")


def _place(document: Document, key: Document) -> Place:
    ref = key["secretRef"]
    return Place(document["metadata"]["name"], key["name"], ref["name"], ref.get("key") or "")


# -- resources ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """Is the version that stands there right, and which one is in force?"""

    generation: int  # of the version judged
    in_force: int | None  # generation of the version in force; None: none is
    reason: Reason = Reason.VALID
    path: str = ""  # of the field that is wrong
    rule: str = ""  # that it breaks
    consequence: str = ""

    @property
    def accepted(self) -> bool:
        """Nothing is wrong with it."""
        return self.reason is Reason.VALID

    @property
    def message(self) -> str:
        """One sentence for people."""
        if self.accepted:
            return "the spec is right, and everything that it names is there"
        return f"{self.path}: {self.rule}; {self.consequence}".removeprefix(": ")


@dataclass(frozen=True, slots=True)
class KeyTrouble:
    """A key whose Secret is not there or says no key; `until`: the hash found before works until then (Unix s)."""

    name: str
    rule: str
    until: float | None


@dataclass(frozen=True, slots=True)
class Selection:
    """What came out. `accepted` goes into the next selection as `last_good`."""

    snapshot: Snapshot
    verdicts: Mapping[Identity, Verdict]
    in_force: Mapping[Identity, Document]
    accepted: Mapping[Identity, Manifest]
    keys: Mapping[str, tuple[KeyTrouble, ...]] = field(
        default_factory=dict
    )  # by tenant; of the version that stands there


def identity_of(document: Document) -> Identity:
    """Kind and name."""
    return document["kind"], document["metadata"]["name"]


def generation_of(document: Document) -> int:
    """The generation of an object; 0 where nobody counts."""
    return int(document["metadata"].get("generation") or 0)


def select(
    manifests: Sequence[Manifest],
    last_good: Mapping[Identity, Manifest],
    known: Mapping[Place, Known] | None = None,
    leaving: Collection[str] = (),
) -> Selection:
    """The best set that compiles, with a verdict for each resource but Secrets.

    Every document has a kind and a name, and no two have the same. When two claim the same model or API key, what is in
    force unchanged keeps it, then the older object. The same input gives the same result, in any order. `leaving`: pools that
    are being deleted; they are in it, but no route leads there.

    >>> select([], {}).snapshot.tenants
    []
    """
    return _Choice(manifests, last_good, known or {}, leaving).made()


class _Choice:
    """The version of each resource, from the best one downwards until all fit together."""

    def __init__(
        self,
        manifests: Sequence[Manifest],
        last_good: Mapping[Identity, Manifest],
        known: Mapping[Place, Known],
        leaving: Collection[str],
    ) -> None:
        secrets = [one for one in manifests if one.document.get("kind") == "Secret"]
        readable = [one for one in secrets if not isinstance(read(one), Flaw)]
        self._secrets: dict[str, Document] = {one.document["metadata"]["name"]: one.document for one in readable}
        self._known = known
        self._leaving = leaving
        self._last = last_good
        there = {identity_of(one.document): one for one in manifests if one.document.get("kind") != "Secret"}
        self._there = dict(sorted(there.items(), key=self._seniority))
        self._at = dict.fromkeys(self._there, 0)  # which version
        self._flaws: dict[Identity, Flaw] = {}  # of the version that stands there
        self._chosen: dict[Identity, Document | None] = {
            identity: self._version(identity, 0) for identity in self._there
        }

    def made(self) -> Selection:
        """Step down with whatever is wrong, those first that others name: what follows from a flaw is none itself."""
        while isinstance(compiled := self._compiled(), list):
            flaws: dict[Identity, Flaw] = {}
            identities = [identity for identity, chosen in self._chosen.items() if chosen is not None]
            for flaw in compiled:
                flaws.setdefault(identities[flaw.position - 1], flaw)
            first = min(_turn(identity, flaw) for identity, flaw in flaws.items())
            for identity, flaw in flaws.items():
                if _turn(identity, flaw) == first:
                    if self._at[identity] == 0:
                        self._flaws[identity] = flaw
                    self._step_down(identity)
        in_force = {identity: chosen for identity, chosen in self._chosen.items() if chosen is not None}
        keys = {
            name: tuple(self._troubles(one.document)) for (kind, name), one in self._there.items() if kind == "Tenant"
        }
        verdicts = {
            (kind, name): self._verdict((kind, name), keys.get(name, ()) if kind == "Tenant" else ())
            for kind, name in self._there
        }
        accepted = dict(self._last_of_those_there())
        return Selection(compiled, verdicts, in_force, accepted, {name: told for name, told in keys.items() if told})

    def _compiled(self) -> Snapshot | list[Flaw]:
        """Positions are those of the resources in force, from 1; Secrets come last and have no flaws."""
        documents = [chosen for chosen in self._chosen.values() if chosen is not None]
        return compile_snapshot(
            [
                Manifest("", position, one)
                for position, one in enumerate([*documents, *self._secrets.values()], start=1)
            ],
            self._leaving,
        )

    def _seniority(self, item: tuple[Identity, Manifest]) -> tuple[int, str, Identity]:
        """Unchanged, new, changed; of an operator that was started again all is new but what had a version before."""
        identity, manifest = item
        last = self._last.get(identity)
        rank = 1 if last is None else 0 if _same(last.document, manifest.document) else 2
        return rank, str(manifest.document["metadata"].get("creationTimestamp") or ""), identity

    def _step_down(self, identity: Identity) -> None:
        """To the next version that differs from the one before; after the last there is none."""
        before = self._chosen[identity]
        for at in range(self._at[identity] + 1, 4):
            version = self._version(identity, at)
            if version is not None and version != before:
                self._at[identity], self._chosen[identity] = at, version
                return
        self._at[identity], self._chosen[identity] = 4, None

    def _version(self, identity: Identity, at: int) -> Document | None:
        """0: as it stands there, 1: as accepted last, 2 and 3: these without what is not there."""
        manifest = self._last.get(identity) if at % 2 else self._there[identity]
        if manifest is None:
            return None
        document: Document = manifest.document
        if identity[0] != "Tenant" or isinstance(read(manifest), Flaw):
            return document if at < 2 else None
        document = self._with_known_keys(document)
        return document if at < 2 else self._without_the_missing(document)

    def _with_known_keys(self, tenant: Document) -> Document:
        """With the hashes of the keys whose Secrets are gone for a while."""
        keys = []
        for key in tenant["spec"].get("keys", ()):
            one = self._known.get(_place(tenant, key)) if key.get("secretRef") else None
            held = one is not None and one.until is not None
            keys.append({"name": key["name"], "sha256": one.digest.hex()} if held and one is not None else key)
        return _with_spec(tenant, "keys", keys)

    def _without_the_missing(self, tenant: Document) -> Document | None:
        """With the models and keys that are there. None if none is: an empty list of models would mean all of them."""
        models = {
            chosen["spec"].get("model") or chosen["metadata"]["name"]
            for (kind, _), chosen in self._chosen.items()
            if kind == "ModelRoute" and chosen is not None
        }
        spec = tenant["spec"]
        for part, rest in (
            ("models", [model for model in spec.get("models") or () if model in models]),
            ("keys", [key for key in spec.get("keys") or () if self._has_key(tenant, key)]),
        ):
            if spec.get(part) and not rest:
                return None
            tenant = _with_spec(tenant, part, rest)
        return tenant

    def _has_key(self, tenant: Document, key: Document) -> bool:
        return not key.get("secretRef") or isinstance(digest_of(self._secrets, _place(tenant, key)), bytes)

    def _troubles(self, tenant: Document) -> Iterator[KeyTrouble]:
        for place in _places(tenant):
            rule = digest_of(self._secrets, place)
            if isinstance(rule, str):
                held = self._known.get(place)
                yield KeyTrouble(place.key, rule, held.until if held else None)

    def _verdict(self, identity: Identity, troubles: Sequence[KeyTrouble]) -> Verdict:
        generation = generation_of(self._there[identity].document)
        at = self._at[identity]
        flaw = self._flaws.get(identity)
        if flaw is None and troubles:  # the hashes found before hide the flaw for a while
            names = [key["name"] for key in self._there[identity].document["spec"]["keys"]]
            path = f"spec.keys[{names.index(troubles[0].name)}].secretRef"
            reason = Reason.NOT_FOUND if troubles[0].rule.startswith("there is no") else Reason.INVALID
            told = "it stays in force with the hash of the key that was found before"
            return Verdict(generation, generation, reason, path, troubles[0].rule, told)
        if flaw is None:
            return Verdict(generation, generation)
        in_force: int | None = generation
        match at:
            case 1 | 3:
                in_force = generation_of(self._last[identity].document)
                consequence = f"the version before (generation {in_force}) stays in force"
            case 2:
                consequence = "it is in force"
            case _:
                in_force, consequence = None, "it is not in force"
        if at in {2, 3}:
            consequence += ", without the models and keys that are not there"
        return Verdict(generation, in_force, reason_of(flaw), flaw.path, flaw.rule, consequence)

    def _last_of_those_there(self) -> Iterator[tuple[Identity, Manifest]]:
        for identity, manifest in self._there.items():
            if identity not in self._flaws:
                yield identity, manifest
            elif identity in self._last:
                yield identity, self._last[identity]


def reason_of(flaw: Flaw) -> Reason:
    """One word for programs."""
    if flaw.rule.startswith("there is no "):
        return Reason.NOT_FOUND
    return Reason.CONFLICT if _is_conflict(flaw) else Reason.INVALID


def _is_conflict(flaw: Flaw) -> bool:
    return " has a route: " in flaw.rule or flaw.rule.startswith("is the same key as ")


def _turn(identity: Identity, flaw: Flaw) -> tuple[int, bool]:
    """Pools before the routes that name them; and a conflict may be over when the other one is left out."""
    order = _ORDER.index(identity[0]) if identity[0] in _ORDER else -1
    return order, _is_conflict(flaw)


def _same(one: Document, other: Document) -> bool:
    return bool(one.get("spec") == other.get("spec"))


def _with_spec(document: Document, part: str, value: Sequence[Any]) -> Document:
    """The same object if nothing changes."""
    if list(document["spec"].get(part) or []) == list(value):
        return document
    return {**document, "spec": {**document["spec"], part: list(value)}}
