"""YAML documents -> typed resources, or flaws that say where to look."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from millrace_operator.core.schema import KINDS, Resource

API_KEY: Final = re.compile(r"mr_[a-z2-7]{32}")
SHA256_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One YAML document: where it stood and what it says."""

    file: str
    position: int  # of the document in the file, from 1
    document: Any


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a manifest is refused. Prints as `tenants.yaml#2 Tenant/acme spec.weight: Expected `float` > 0.0`."""

    file: str
    position: int
    subject: str  # kind/name as far as it can be read
    path: str
    rule: str

    def __str__(self) -> str:
        return f"{self.file}#{self.position} {self.subject} {self.path}: {self.rule}"


def subject_of(document: Any) -> str:
    """`kind/name` of whatever was written, for messages.

    >>> subject_of({"kind": "Tenant", "metadata": {}})
    'Tenant/?'
    """
    if not isinstance(document, dict):
        return "?"
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{document.get('kind') or '?'}/{name or '?'}"


def read(manifest: Manifest) -> Resource | Flaw:
    """The typed resource, or the first rule that the document breaks."""

    def flaw(path: str, rule: str) -> Flaw:
        return Flaw(manifest.file, manifest.position, subject_of(manifest.document), path, rule)

    document = manifest.document
    if not isinstance(document, dict):
        return flaw("(document)", "is not an object")
    if document.get("kind") not in KINDS:
        return flaw("kind", f"{document.get('kind')!r} is not one of {', '.join(KINDS)}")
    try:
        return cast("Resource", msgspec.convert(document, Resource))
    except msgspec.ValidationError as error:
        rule, _, where = str(error).partition(" - at ")
        path = where.strip("`").removeprefix("$").lstrip(".")
        if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", rule):
            path, rule = ".".join(filter(None, (path, unknown[1]))), "unknown field"
        if missing := re.fullmatch(r"Object missing required field `(.*)`", rule):
            path, rule = ".".join(filter(None, (path, missing[1]))), "is required"
        return flaw(path or "(document)", rule)


def key_hash(value: str) -> bytes | None:
    """SHA-256 of an API key, given as the key or as the hash in hexadecimal; None when it is neither.

    >>> key_hash("mr_" + "a" * 32) == hashlib.sha256(b"mr_" + b"a" * 32).digest()
    True
    """
    if API_KEY.fullmatch(value):
        return hashlib.sha256(value.encode()).digest()
    return bytes.fromhex(value) if SHA256_HEX.fullmatch(value) else None
