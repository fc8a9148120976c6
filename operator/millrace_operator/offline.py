"""Publish the configuration without Kubernetes: folders of manifests in, `cfg:snapshot` in Redis out.

    python -m millrace_operator.offline --manifests DIR [--manifests DIR2] --redis-url redis://...
    python -m millrace_operator.offline --manifests DIR --check

Looks twice a second whether a file changed and whether Redis still holds what was published; a Redis that lost it gets it
again. Manifests that are wrong change nothing: the last good snapshot stays and each flaw is printed with file, kind/name,
field and rule. One publisher per Redis; two with different manifests would overwrite each other.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import redis
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from redis.exceptions import RedisError

from millrace.config.v1.config_pb2 import Snapshot
from millrace_operator.folders import compile_folders, fingerprint

KEY, CHANNEL = "cfg:snapshot", "cfg"
POLL_S = 0.5


class Publisher:
    """Keeps `cfg:snapshot` equal to the last good set of manifests."""

    def __init__(self, folders: Sequence[Path], store: redis.Redis) -> None:
        self._folders = folders
        self._store = store
        self._seen: object = None
        self._good: Snapshot | None = None

    def step(self, now: float) -> list[str]:
        """Look once; what happened, as sentences. Raises RedisError, and then the next step tries again."""
        said = self._look(now)
        if self._good is None:
            return said
        held = parsed(self._store.get(KEY))
        if held is None or held.version != self._good.version:
            raw = self._good.SerializeToString(deterministic=True)
            self._store.set(KEY, raw)
            self._store.publish(CHANNEL, self._good.version.encode())
            said.append(f"published {describe(self._good)}")
        return said

    def _look(self, now: float) -> list[str]:
        seen = fingerprint(self._folders)
        if seen == self._seen:
            return []
        self._seen = seen
        compiled = compile_folders(self._folders)
        if isinstance(compiled, list):
            kept = f"snapshot {self._good.version} stays" if self._good else "nothing is published"
            return [f"refused: {flaw}" for flaw in compiled] + [kept]
        self._good = stamped(compiled, now)
        return []


def stamped(compiled: Snapshot, now: float) -> Snapshot:
    """With the time at which it was compiled (Unix s)."""
    compiled.compiled_at.FromMicroseconds(round(now * 1e6))
    return compiled


def parsed(raw: object) -> Snapshot | None:
    """The snapshot that Redis holds; None if it holds none that can be read."""
    if not isinstance(raw, bytes):
        return None
    try:
        return Snapshot.FromString(raw)
    except DecodeError:
        return None


def describe(snapshot: Snapshot) -> str:
    """One line for people."""
    return (
        f"snapshot {snapshot.version}: {len(snapshot.pools)} pools, {len(snapshot.routes)} routes, "
        f"{len(snapshot.tenants)} tenants"
    )


def check(folders: Sequence[Path]) -> int:
    """Print the snapshot, without key hashes, or the flaws; the exit status says which."""
    compiled = compile_folders(folders)
    if isinstance(compiled, list):
        print("\n".join(map(str, compiled)), file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    for tenant in compiled.tenants:
        for key in tenant.keys:
            key.ClearField("sha256")
    print(f"# {describe(compiled)}\n{text_format.MessageToString(compiled)}", end="")  # noqa: T201
    return 0


def publish(folders: Sequence[Path], redis_url: str) -> int:
    """Publish until told to stop."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    store = redis.Redis.from_url(redis_url, socket_timeout=2.0, socket_connect_timeout=2.0)
    publisher, away = Publisher(folders, store), False
    while not stop.is_set():
        try:
            said, away = publisher.step(time.time()), False
        except (RedisError, OSError) as reason:
            said, away = [] if away else [f"Redis is away: {reason}"], True
        for sentence in said:
            print(sentence, flush=True)  # noqa: T201 - the log of this process
        stop.wait(POLL_S)
    store.close()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="millrace_operator.offline", description=__doc__.partition("\n")[0])
    parser.add_argument("--manifests", type=Path, action="append", required=True, metavar="DIR")
    parser.add_argument(
        "--redis-url", default=os.environ.get("MILLRACE_COMMON__REDIS_URL", "redis://127.0.0.1:16379/0"), metavar="URL"
    )
    parser.add_argument("--check", action="store_true", help="validate, print the snapshot and exit")
    options = parser.parse_args(arguments)
    return check(options.manifests) if options.check else publish(options.manifests, options.redis_url)


if __name__ == "__main__":
    sys.exit(main())
