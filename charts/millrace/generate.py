"""values.yaml -> values.schema.json and the table of values in README.md.

    python charts/millrace/generate.py            write both
    python charts/millrace/generate.py --check    say which of them is not current

A value is described by the comment lines above it. Three words in them are not for readers:

    @schema {maximum: 2}    what JSON Schema shall check beyond the type of the default
    @type resources         a shape of `SHAPES`; what is below the value is its default, not more values
    @like gateway           a section whose values have the descriptions of another one's, unless they bring their own
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent
BEGIN, END = "<!-- values: written by generate.py -->", "<!-- end of values -->"

_STRINGS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
_QUANTITY: dict[str, Any] = {
    "type": ["string", "integer"],
    "pattern": r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?$",
    "minimum": 0,
}
_QUANTITIES: dict[str, Any] = {"type": "object", "additionalProperties": _QUANTITY}
_PORT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 65535}
# Kubernetes checks the inside of the last two: their schema is its own.
SHAPES: dict[str, dict[str, Any]] = {
    "strings": _STRINGS,
    "quantity": _QUANTITY,
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "requests": _QUANTITIES | {"description": "What the scheduler sets aside."},
            "limits": _QUANTITIES | {"description": "What the container never exceeds."},
        },
    },
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "port": _PORT,
    "ports": {"type": "array", "minItems": 1, "items": _PORT},
    "passthrough": {"type": "array", "items": {"type": "object", "additionalProperties": True}},
    "anything": {"type": "object", "additionalProperties": True},
}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


@dataclass
class Note:
    """What the comment above a value says."""

    text: str = ""
    schema: dict[str, Any] = field(default_factory=dict)
    shape: str = ""
    like: str = ""


Path_ = tuple[str, ...]


def notes(text: str) -> dict[Path_, Note]:
    """The note of each value that has one, by its path."""
    found: dict[Path_, Note] = {}
    comment: list[str] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").strip())
            continue
        key, colon, _ = stripped.partition(":")
        if colon and not stripped.startswith("-"):
            indent = len(line) - len(line.lstrip())
            path = [step for step in path if step[0] < indent] + [(indent, key)]
            if comment:
                found[tuple(name for _, name in path)] = _note(comment)
        comment = []
    return found


def _note(lines: list[str]) -> Note:
    note, words = Note(), []
    for line in lines:
        directive, _, argument = line.partition(" ")
        match directive:
            case "@schema":
                note.schema = yaml.safe_load(argument)
            case "@type":
                note.shape = argument
            case "@like":
                note.like = argument
            case _:
                words.append(line)
    note.text = " ".join(words)
    return note


@dataclass(frozen=True)
class Value:
    """One value: where it stands, what it is and by default."""

    path: Path_
    default: Any
    note: Note

    @property
    def is_section(self) -> bool:
        """Has it values below it?"""
        return isinstance(self.default, dict) and not self.note.shape and not self.note.schema


def values(text: str) -> list[Value]:
    """All values in the order of the file. Raises KeyError for one without a description."""
    return list(_walk((), yaml.safe_load(text), notes(text), ""))


def _walk(path: Path_, section: Mapping[str, Any], known: Mapping[Path_, Note], like: str) -> Iterator[Value]:
    for name, default in section.items():
        here = (*path, name)
        note, other = known.get(here, Note()), known.get((like, *here[1:]), Note()) if like else Note()
        note = Note(note.text or other.text, note.schema or other.schema, note.shape or other.shape, note.like)
        if not note.text:
            raise KeyError(f"{'.'.join(here)} has no description above it")
        value = Value(here, default, note)
        yield value
        if value.is_section:
            yield from _walk(here, default, known, note.like or like)


def schema(text: str) -> dict[str, Any]:
    """JSON Schema of values.yaml: what is not there is refused."""
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft-07/schema#",
        "title": "Values of the chart millrace",
        "description": "Written by generate.py from values.yaml.",
        **_section(),
    }
    shared = {"type": "object", "description": "Helm's own: values shared with the charts around this one."}
    places: dict[Path_, dict[str, Any]] = {(): root}
    for value in values(text):
        properties = places[value.path[:-1]]["properties"]
        if value.is_section:
            places[value.path] = properties[value.path[-1]] = {"description": value.note.text, **_section()}
        else:
            shape = SHAPES[value.note.shape] if value.note.shape else {"type": _TYPES[type(value.default)]}
            properties[value.path[-1]] = {"description": value.note.text} | shape | value.note.schema
    for place in ((), ("crds",)):
        places[place]["properties"]["global"] = shared
    return root


def _section() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def table(text: str) -> str:
    """The table for README.md: one row for each value that is not a section."""
    rows = ["| value | default | |", "|---|---|---|"]
    for value in values(text):
        cell = "" if value.is_section else f"`{json.dumps(value.default, separators=(',', ':'))}`".replace("|", r"\|")
        told = value.note.text.replace("|", r"\|").replace("<", "&lt;")
        name = f"**`{'.'.join(value.path)}`**" if value.is_section else f"`{'.'.join(value.path)}`"
        rows.append(f"| {name} | {cell} | {told} |")
    return "\n".join(rows)


def wanted() -> dict[Path, str]:
    """The files as they should be."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    readme = CHART / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    return {
        CHART / "values.schema.json": json.dumps(schema(text), indent=2, ensure_ascii=False) + "\n",
        readme: f"{before}{BEGIN}\n\n{table(text)}\n\n{END}{rest.partition(END)[2]}",
    }


def main() -> None:
    """Write, or check."""
    stale = [path for path, text in wanted().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        names = ", ".join(path.name for path in stale)
        sys.exit(f"not current: {names}. Run: python charts/millrace/generate.py" if stale else 0)
    for path in stale:
        path.write_text(wanted()[path], encoding="utf-8")


if __name__ == "__main__":
    main()
