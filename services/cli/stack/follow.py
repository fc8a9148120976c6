"""Print the last lines of log files, and go on as they grow."""

import itertools
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from services.cli.stack.processes import tail

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
POLL_S = 0.2


def show(logs: Mapping[str, Path], lines: int, follow: bool, console: Console) -> None:
    """Show files by name; the name stands before each line when there are several. Returns at once unless `follow`."""
    width = max(map(len, logs)) if len(logs) > 1 else 0
    colours = dict(zip(logs, itertools.cycle(COLOURS)))

    def put(name: str, text: str) -> None:
        for line in text.splitlines():
            prefix = Text(f"{name:{width}} ", colours[name]) if width else Text()
            console.print(prefix + Text(line), soft_wrap=True)

    ends = {name: _size(path) for name, path in logs.items()}
    for name, path in logs.items():
        put(name, tail(path, lines))
    try:
        while follow:
            for name, path in logs.items():
                size = _size(path)
                if size > ends[name]:
                    put(name, _between(path, ends[name], size))
                ends[name] = size  # also when it began anew
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        return


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _between(path: Path, start: int, end: int) -> str:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start).decode(errors="replace")
