"""The folder that a stack lives in: who holds it, its secrets, its status file.

stack.lock      held by the running supervisor (the kernel lets go of it when that process dies)
status.json     what runs, with pids and ports; mode 0600, it holds the local API key
secrets/        made at the first start, mode 0600: `local-key`, `task-id`
manifests/      read beside the committed manifests: the Secret with the local key, and what anyone adds
<instance>/     data of one process;  logs/<instance>.log  its output
"""

import base64
import fcntl
import os
import secrets
from pathlib import Path

import msgspec
import yaml

from services.cli.stack.core.report import StackStatus


class Home:
    """Paths and files of one stack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.status_file = self.folder / "status.json"
        self.secrets = self.folder / "secrets"
        self.manifests = self.folder / "manifests"
        self._lock: int | None = None

    def log(self, instance: str) -> Path:
        """Output of a process."""
        return self.folder / "logs" / f"{instance}.log"

    def hold(self) -> bool:
        """Become the one supervisor of this folder; False if another one is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def let_go(self) -> None:
        """No longer the supervisor."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_held(self) -> bool:
        """Does a supervisor run here?"""
        try:
            lock = os.open(self.folder / "stack.lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(lock)

    def read_status(self) -> StackStatus | None:
        """The last status written, by a supervisor that may be gone; None if there never was one."""
        try:
            return msgspec.json.decode(self.status_file.read_bytes(), type=StackStatus)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def write_status(self, status: StackStatus) -> None:
        """Replace the status file in one step."""
        write_private(self.status_file, msgspec.json.format(msgspec.json.encode(status)))

    def prepare(self) -> str:
        """Make the secrets unless they are there; returns the local API key."""
        key_file, task_id_file = self.secrets / "local-key", self.secrets / "task-id"
        if not key_file.exists():
            write_private(key_file, b"mr_" + base64.b32encode(secrets.token_bytes(20)).lower())
        if not task_id_file.exists():
            write_private(task_id_file, base64.b64encode(secrets.token_bytes(32)))
        key = key_file.read_text().strip()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "local"}, "stringData": {"key": key}}
        write_private(self.manifests / "local-key.yaml", yaml.safe_dump(secret).encode())
        return key


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)
