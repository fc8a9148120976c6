"""`millrace up`, `down`, `status`, `logs`, `fault`."""

import asyncio
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from services.cli.options import Data
from services.cli.stack import follow
from services.cli.stack.core.report import State
from services.cli.stack.handle import Stack, StackError
from services.cli.stack.home import Home
from services.cli.stack.runner import HeldError, Wanted, supervise
from services.cli.stack.slowing import slow
from services.cli.stack.table import Progress, table

console = Console()


class Fault(StrEnum):
    """What `millrace fault` can do to a process."""

    KILL = "kill"
    PAUSE = "pause"
    SLOW = "slow"
    RESUME = "resume"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status, logs, fault):
        app.command()(command)


def up(
    data: Data,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all is ready; stop with `millrace down`.")
    ] = False,
    counts: Annotated[str, typer.Option(help="How many of what, for example worker=4,gateway=1.")] = "",
    only: Annotated[
        str, typer.Option(help="Only these components and what they start after, for example redis,kafka.")
    ] = "",
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Any free ports instead of the usual ones.")] = False,
) -> None:
    r"""Start everything: Kafka, Redis, Triton and all services. A second `up` finds the one that runs.

    \b
    millrace up                          in the foreground, Ctrl-C stops
    millrace up --detach                 in the background
    millrace up --counts worker=4        four workers on the tiny model
    millrace up --only worker-sim        the simulated worker, with Redis and Kafka
    """
    wanted_counts, wanted = _counts(counts), [name for name in only.split(",") if name]
    if Home(data).is_held():
        running = Stack(data).status
        console.print(table(running))
        console.print(f"It runs already (supervisor {running.pid}). Stop it with: millrace down")
    elif detach:
        stack = Stack(data, ports="free" if free_ports else "default", counts=wanted_counts, only=wanted)
        stack.start()
        try:
            with Progress(console) as progress:
                for current in stack.progress():
                    progress.show(current)
        except (StackError, KeyboardInterrupt):
            stack.stop()
            raise
    else:
        with Progress(console) as progress:
            try:
                asyncio.run(supervise(Wanted(data, free_ports, wanted_counts, wanted), progress.show))
            except HeldError:
                raise StackError("another `millrace up` was quicker; see `millrace status`") from None


def down(data: Data) -> None:
    r"""Stop the stack politely; its data stays.

    \b
    millrace down
    """
    with console.status("stopping"):
        stopped = Stack(data).stop()
    console.print("Stopped." if stopped else f"Nothing runs in {data}.")


def status(
    data: Data,
    as_json: Annotated[
        bool, typer.Option("--json", help="Addresses, ports, pids, key and page, for programs.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it.")] = False,
) -> None:
    r"""What runs: state, ports, pid, restarts of every process. Exits with 1 unless all is ready.

    \b
    millrace status --watch
    millrace status --json | jq -r .page
    """
    stack = Stack(data)
    current = stack.status
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(current)).decode())
    elif watch:
        with Progress(console) as progress:
            while True:
                progress.show(stack.status)
                time.sleep(0.25)
    else:
        console.print(table(current))
    raise typer.Exit(0 if current.state is State.READY else 1)


def logs(
    data: Data,
    components: Annotated[
        list[str] | None, typer.Argument(help="Instances or components; all if none is given.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines of each.")] = 20,
    keep: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they grow.")] = False,
) -> None:
    r"""Show what processes wrote.

    \b
    millrace logs gateway-1
    millrace logs -f worker dispatcher
    """
    last = Home(data).read_status()
    if last is None:
        raise StackError(f"no stack ever ran in {data}")
    try:
        chosen = [c for name in components or [] for c in last.named(name)] or last.components
    except KeyError as unknown:
        raise StackError(str(unknown.args[0])) from None
    follow.show({c.name: Path(c.log) for c in chosen}, lines, keep, console)


def fault(
    component: Annotated[str, typer.Argument(help="An instance (worker-1) or all of a component (worker).")],
    what: Annotated[Fault, typer.Argument(help="kill -9; pause until resume; slow: held up most of the time.")],
    data: Data,
    share: Annotated[float, typer.Option(min=0.01, max=0.99, help="slow: the share of time that it is held up.")] = 0.9,
    seconds: Annotated[float, typer.Option("--for", help="slow: how long; otherwise until Ctrl-C.")] = 0.0,
) -> None:
    r"""Break something and see the rest go on. The stack restarts what dies.

    \b
    millrace fault worker-1 kill
    millrace fault dispatcher-1 pause ; millrace fault dispatcher-1 resume
    millrace fault gateway-2 slow --for 10
    """
    stack = Stack(data)
    try:
        pids = [c.pid for c in stack.status.named(component) if c.pid]
        console.print(f"{what} {component} (pid {', '.join(map(str, pids)) or 'none'})")
        match what:
            case Fault.KILL:
                stack.kill(component)
            case Fault.PAUSE:
                stack.pause(component)
            case Fault.RESUME:
                stack.resume(component)
            case Fault.SLOW:
                slow(pids, share, seconds or float("inf"))
    except KeyError as unknown:
        raise StackError(str(unknown.args[0])) from None


def _counts(text: str) -> dict[str, int]:
    try:
        return {name: int(count) for name, count in (item.split("=") for item in text.split(",") if item)}
    except ValueError:
        raise StackError(f"--counts {text}: write it like worker=4,gateway=1") from None
