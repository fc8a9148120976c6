"""Become the supervisor of a folder: hold it, end what an earlier one left, run the stack until a signal."""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.cli.stack import port_search, processes
from services.cli.stack.core.blueprint import assign_ports, expand, parse
from services.cli.stack.core.report import StackStatus
from services.cli.stack.home import Home
from services.cli.stack.software import LOCAL, MissingError, missing
from services.cli.stack.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to run where."""

    folder: Path
    free_ports: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    only: Sequence[str] = ()


class HeldError(Exception):
    """Another supervisor runs in this folder."""


async def supervise(wanted: Wanted, changed: Callable[[StackStatus], None] = lambda _: None) -> None:
    """Run the stack until SIGTERM or SIGINT. Raises HeldError, MissingError, BlueprintError before anything starts."""
    components, environment = parse((LOCAL / "components.toml").read_text())
    instances = expand(components, wanted.counts, wanted.only)
    if absent := missing(need for i in instances for need in i.component.needs):
        raise MissingError("\n".join(absent))
    home = Home(wanted.folder)
    if not home.hold():
        raise HeldError(str(home.folder))
    try:
        if earlier := home.read_status():
            await asyncio.to_thread(processes.end_leftovers, [(c.pid, c.started_ticks) for c in earlier.components])
        start = port_search.somewhere() if wanted.free_ports else None
        ports = assign_ports(instances, port_search.is_free, start)
        supervisor = Supervisor(
            home, instances=instances, ports=ports, environment=environment, key=home.prepare(), changed=changed
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        await supervisor.run()
    finally:
        home.let_go()
