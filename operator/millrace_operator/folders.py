"""Folders of YAML files -> manifests."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from millrace.config.v1.config_pb2 import Snapshot
from millrace_operator.core.manifests import Flaw, Manifest
from millrace_operator.core.snapshot import compile_snapshot


def files_of(folders: Sequence[Path]) -> list[Path]:
    """The `.yaml` and `.yml` files directly in these folders, in a stable order. A folder may come to exist later."""
    return sorted(
        path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.suffix in {".yaml", ".yml"}
    )


def fingerprint(folders: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever a file is added, removed or written."""
    found = []
    for path in files_of(folders):
        try:
            status = path.stat()
        except FileNotFoundError:  # removed since it was listed
            continue
        found.append((str(path), status.st_mtime_ns, status.st_size))
    return tuple(found)


def read_manifests(folders: Sequence[Path]) -> tuple[list[Manifest], list[Flaw]]:
    """Every document of every file, and what is not YAML."""
    manifests: list[Manifest] = []
    flaws: list[Flaw] = []
    for path in files_of(folders):
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            flaws.append(Flaw(str(path), 1, "?", "(file)", " ".join(str(error).split())))
            continue
        manifests += [
            Manifest(str(path), position, document)
            for position, document in enumerate(documents, start=1)
            if document is not None
        ]
    return manifests, flaws


def compile_folders(folders: Sequence[Path]) -> Snapshot | list[Flaw]:
    """The snapshot of all manifests in these folders together, or what is wrong with them."""
    manifests, unreadable = read_manifests(folders)
    compiled = compile_snapshot(manifests)
    if isinstance(compiled, list):
        return unreadable + compiled
    return unreadable or compiled
