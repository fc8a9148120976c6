"""Real components for tests: own ports, own data folder, readiness by a real call, stopped with the test process."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from services.cli.stack.handle import Stack
from services.cli.stack.port_search import free_port

__all__ = ["component", "free_port"]


@contextlib.contextmanager
def component(name: str, folder: Path) -> Iterator[dict[str, int]]:
    """Run one component of the stack; its ports. A missing one fails with the command that installs it."""
    with Stack(folder, ports="free", only=[name], tied=True) as stack:
        yield stack.wait_ready(60).named(name)[0].ports
