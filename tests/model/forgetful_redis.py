"""A Redis of a test's own, which can be killed, and made to forget its newest writes as a crash before the fsync does."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from services.cli.stack import probes
from tests.support.components import free_port


class ForgetfulRedis:
    """`mark()` before what shall be forgotten, then `restart(mark)`. It comes back at the same address, as another run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self.folder),
            "--save",
            "",
        ]
        # Without its own fsync, because while one is under way Redis answers up to 2 s before it writes, and no mark would be exact.
        command += ["--appendonly", "yes", "--appendfsync", "no", "--stream-node-max-bytes", "512"]
        with (self.folder / "redis.log").open("ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 20
        while probes.redis_answers(self.port):  # what is wrong with it, if anything
            assert time.monotonic() < deadline, (self.folder / "redis.log").read_text()
            time.sleep(0.01)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def mark(self) -> int:
        """How much of the append-only file is written: Redis writes it before it answers."""
        return self._file().stat().st_size

    def restart(self, mark: int | None = None) -> None:
        """Kill it and start it again, without what it wrote after the mark."""
        self.kill()
        if mark is not None:
            os.truncate(self._file(), mark)
        self.start()

    def _file(self) -> Path:
        return max((self.folder / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)


@contextlib.contextmanager
def forgetful_redis(folder: Path) -> Iterator[ForgetfulRedis]:
    """Running until the block ends."""
    server = ForgetfulRedis(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
