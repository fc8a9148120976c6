"""Real components for tests: own ports, own data folder, readiness by a real call, stopped by process id."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from services.cli.stack import kafka_broker, probes
from services.cli.stack.software import program


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(name: str, command: Sequence[str], folder: Path, ready: Callable[[], bool], patience_s: float = 30) -> Iterator[None]:
    """Run a process until the block ends; it dies with the test process, whatever happens to that."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command], cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + patience_s
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{name} did not become ready:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis with the stack's settings; its URL."""
    port = free_port()
    command = [
        program("redis-server", "redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "",
        "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--stream-node-max-bytes", "512",
    ]  # fmt: skip
    with running("redis", command, folder, lambda: probes.redis_answers("127.0.0.1", port)):
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def kafka(folder: Path) -> Iterator[str]:
    """A one-broker Kafka; its bootstrap address."""
    port = free_port()
    command = kafka_broker.prepare(folder, port, free_port())
    with running("kafka", command, folder, lambda: probes.kafka_answers("127.0.0.1", port)):
        yield f"127.0.0.1:{port}"
