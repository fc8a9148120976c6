"""What the schema of the custom resources is written with: descriptions, bounds, rules and columns.

A field is `slots: Annotated[int, Meta(ge=1, le=4096), doc("Tasks that one worker runs at once.")] = 8`. From that come the
offline compiler (`manifests.py`), the CRDs (`definitions.py`) and `kubectl explain`; the generator adds range and default to
the sentence itself, so that it never says them wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta


def doc(text: str) -> Meta:
    """The description of a field: what it means, in which unit, what follows from it."""
    return Meta(description=text)


def keyed(field: str) -> Meta:
    """A list whose entries are known by this field: no two have the same, and server-side apply merges by it."""
    return Meta(extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [field]})


@dataclass(frozen=True, slots=True)
class Rule:
    """What single fields cannot say. The API server evaluates `cel`; `holds` is the same for manifests in a folder.

    `holds` is None for a rule that compares with the object before, and for one that `snapshot.py` checks anyway, where
    the flaw names a deeper place. A message names the field and the way out.
    """

    cel: str
    message: str
    field: str = ""  # shown as the place of the error, below the struct that has the rule
    holds: Callable[[Any], bool] | None = None
    first_too: bool = False  # `oldSelf` is an optional: the rule holds for new objects as well

    @property
    def is_transition(self) -> bool:
        """Does it look at the object before the change?"""
        return "oldSelf" in self.cel


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`."""

    name: str
    path: str
    type: str
    description: str
    wide: bool = False  # only with `-o wide`


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Base of all parts: camel case as in Kubernetes, unknown fields refused, rules checked when it is made."""

    rules: ClassVar[tuple[Rule, ...]] = ()

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule.holds is not None and not rule.holds(self):
                raise ValueError(rule.message)


class CustomResource(Schema, frozen=True, kw_only=True, tag_field="kind"):
    """Base of the kinds that have a CRD; the docstring of each is what `kubectl explain` begins with."""

    plural: ClassVar[str]
    short_name: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    has_scale: ClassVar[bool] = False


Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63)]
ObjectName = Annotated[
    str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]
ModelName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$", max_length=128)]
Tokens = Annotated[int, Meta(ge=1, le=1_000_000)]
Positive = Annotated[float, Meta(gt=0, le=1e12)]
Count = Annotated[int, Meta(ge=0, le=2_147_483_647)]
Amount = Annotated[float, Meta(ge=0, le=1e12)]
Generation = Annotated[int, Meta(ge=0, le=2**53)]  # the API server keeps bounds as floats: 2**63 - 1 would overflow
Image = Annotated[str, Meta(min_length=1, max_length=512)]
Folder = Annotated[str, Meta(pattern=r"^/[^\s]*$", max_length=512)]
Port = Annotated[int, Meta(ge=1024, le=65535)]
Quantity = (
    Annotated[int, Meta(ge=0)]
    | Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[numkMGTPE])?$", max_length=32)]
)  # fmt: skip


class Metadata(Schema, frozen=True, kw_only=True):
    """Of these only the name has a meaning here; what the API server adds may stand in a manifest and is not read."""

    name: Name
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    generate_name: str = ""
    generation: int = 0
    resource_version: str = ""
    uid: str = ""
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: int | None = None
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[dict[str, Any], ...] = ()
    managed_fields: tuple[dict[str, Any], ...] = ()
