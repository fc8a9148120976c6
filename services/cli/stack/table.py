"""A stack's status for people: a table that stays in place on a terminal, one line for each change elsewhere."""

import time
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from services.cli.stack.core.report import StackStatus, State

COLOURS = {
    State.READY: "green",
    State.DONE: "green",
    State.STARTING: "yellow",
    State.STOPPING: "yellow",
    State.UNREADY: "red",
    State.BROKEN: "red",
    State.PAUSED: "magenta",
}


# Headings and the least width of their columns: what a narrow terminal lacks is taken from ports and remarks.
COLUMNS = {"component": 13, "state": 8, "ports": 10, "pid": 6, "restarts": 8, "up": 7, "": 5}


def table(status: StackStatus) -> RenderableType:
    """All processes, and the page's address once all are ready."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for heading, width in COLUMNS.items():
        rows.add_column(
            heading,
            justify="right" if heading in {"pid", "restarts", "up"} else "left",
            no_wrap=True,
            min_width=width,
            overflow="ellipsis",
        )
    for c in status.components:
        rows.add_row(
            c.name,
            Text(c.state, COLOURS.get(c.state, "dim")),
            " ".join(f"{name} {port}" if len(c.ports) > 1 else str(port) for name, port in c.ports.items()),
            str(c.pid or ""),
            str(c.restarts or ""),
            uptime(time.time() - c.since) if c.pid else "",
            Text(c.message or c.title, "dim"),
        )
    return Group(rows, Text(), headline(status))


def headline(status: StackStatus) -> Text:
    """The one sentence that matters now."""
    match status.state:
        case State.READY if status.page:
            return Text.assemble(("Ready. Open  ", "bold"), (status.page, "bold cyan underline"))
        case State.READY:
            return Text("Ready.", "bold")
        case State.UNREADY:
            return Text("Something is not as it should be; it is being restarted or can be resumed.", "red")
        case state:
            return Text(f"{state.capitalize()} ...", "yellow")


def uptime(seconds: float) -> str:
    """Short, for a column.

    >>> uptime(7), uptime(754), uptime(90000)
    ('7s', '12m34s', '25h00m')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes_left:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


class Progress:
    """Shows a status again and again: in place on a terminal, else by printing what changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._seen: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, status: StackStatus) -> None:
        """Show it now."""
        if self._live:
            self._live.update(table(status), refresh=True)
            return
        for c in status.components:
            if self._seen.get(c.name) != c.state:
                self._seen[c.name] = c.state
                self._console.print(f"{c.name}: {c.state} {c.message}".rstrip(), soft_wrap=True, highlight=False)
        if self._seen.get("") != status.state and status.state is not State.STARTING:
            self._console.print(headline(status), soft_wrap=True)
        self._seen[""] = status.state
