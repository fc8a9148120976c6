"""Where the external programs are on this machine, and what to do when one is missing.

Downloads live outside the tree, under the XDG cache, in a folder for each version; a folder that is complete carries the
file `installed`, written last. Nothing here downloads: `kafka_broker.install` and `deploy/triton/install` do.
"""

import os
import shutil
import tomllib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
LOCAL = ROOT / "deploy" / "local"


class MissingError(Exception):
    """Something that the stack needs is not on this machine; the message names the command that brings it."""


@cache
def versions() -> dict[str, dict[str, Any]]:
    """`deploy/local/versions.toml`, the one place where releases are pinned."""
    return tomllib.loads((LOCAL / "versions.toml").read_text())


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/millrace`, where downloaded software is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millrace"


def state_dir() -> Path:
    """`$XDG_STATE_HOME/millrace`, where a stack keeps its data unless told otherwise."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "millrace"


def kafka_home() -> Path:
    """Folder of the Kafka jars of the pinned version."""
    return cache_dir() / f"kafka-{versions()['kafka']['version']}"


def triton_home() -> Path:
    """Folder that `deploy/triton/install.sh` fills."""
    return Path(os.environ.get("MILLRACE_TRITON_HOME") or cache_dir() / f"triton-{versions()['triton']['version']}")


def installed(home: Path) -> bool:
    """Was this folder of downloaded software completed?"""
    return (home / "installed").exists()


def program(name: str, package: str) -> str:
    """Path of an executable, or the command that installs its Debian package."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        raise MissingError(f"{name} is not installed. As root: apt-get install -y {package}")
    return found


def missing(needs: Iterable[str]) -> list[str]:
    """For each need that this machine does not meet, a sentence with the command that brings it."""
    found = list[str]()
    for need in dict.fromkeys(needs):
        try:
            _CHECKS[need]()
        except MissingError as reason:
            found.append(str(reason))
    return found


def _kafka() -> None:
    if not installed(kafka_home()):
        raise MissingError(f"Kafka is not in {kafka_home()}. Run: make setup")


def _triton() -> None:
    if not (triton_home() / "installed.lock").exists():
        raise MissingError(f"Triton is not in {triton_home()}. Run: make setup")


_CHECKS: dict[str, Callable[[], object]] = {
    "redis": lambda: program("redis-server", "redis-server"),
    "java": lambda: program("java", "default-jre-headless"),
    "kafka": _kafka,
    "triton": _triton,
}
