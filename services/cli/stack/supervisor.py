"""Keeps the processes of a stack running: starts them in order, watches them, restarts what dies, stops all politely.

One task for each process; the tasks meet only in the events `up` and `gone` of their neighbours. The status file is
rewritten on every change, so everybody else (the command line, tests) reads that and signals processes directly.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.cli.stack import processes
from services.cli.stack.core.blueprint import BlueprintError, Instance, fill
from services.cli.stack.core.report import GOOD, ComponentStatus, StackStatus, State
from services.cli.stack.core.restarts import Restarts
from services.cli.stack.home import Home
from services.cli.stack.probes import probe
from services.cli.stack.software import ROOT

log = logging.getLogger(__name__)

STARTING_POLL_S = 0.1
READY_POLL_S = 1.0
ALIVE_POLL_S = 2.0
ALIVE_MISSES = 3


@dataclass(slots=True)
class Member:
    """One process and what is known of it."""

    instance: Instance
    status: ComponentStatus
    command: list[str]
    environment: dict[str, str]
    restarts: Restarts = field(default_factory=Restarts)
    process: asyncio.subprocess.Process | None = None
    up: asyncio.Event = field(default_factory=asyncio.Event)  # it was ready once
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # it ended, and nothing of it runs


class Supervisor:
    """Runs the instances in the folder `home`, which the caller holds. `changed` is called after every change of state."""

    def __init__(
        self,
        home: Home,
        *,
        instances: Sequence[Instance],
        ports: dict[str, dict[str, int]],
        environment: dict[str, str],
        key: str,
        changed: Callable[[StackStatus], None] = lambda _: None,
    ) -> None:
        self._home = home
        self._changed = changed
        self._stopping = asyncio.Event()
        self._members = [self._member(i, ports, environment) for i in instances]
        gateways = [p["http"] for name, p in ports.items() if name.startswith("gateway-")]
        self.status = StackStatus(
            data=str(home.folder),
            pid=os.getpid(),
            state=State.STARTING,
            page=f"http://127.0.0.1:{gateways[0]}/#key={key}" if gateways else "",
            key=key,
            components=[m.status for m in self._members],
        )

    def _member(self, instance: Instance, ports: dict[str, dict[str, int]], common: dict[str, str]) -> Member:
        component, folder = instance.component, self._home.folder / instance.name
        if any("{data}" in argument for argument in component.command):
            folder.mkdir(parents=True, exist_ok=True)
        values = {
            "python": sys.executable,
            "root": str(ROOT),
            "data": str(folder),
            "manifests": str(self._home.manifests),
            "secrets": str(self._home.secrets),
        }
        environment = dict[str, str]()
        for name, template in common.items():
            try:
                environment[name] = fill(template, instance, ports, values)
            except BlueprintError:
                continue  # names a component that is not in this stack
        own = {name: fill(template, instance, ports, values) for name, template in component.environment.items()}
        status = ComponentStatus(
            name=instance.name,
            title=component.title,
            ports=ports[instance.name],
            log=str(self._home.log(instance.name)),
        )
        command = [fill(argument, instance, ports, values) for argument in component.command]
        return Member(instance, status, command, environment | dict(os.environ) | own)

    def stop(self) -> None:
        """Begin to stop everything; a second call kills what still runs."""
        if self._stopping.is_set():
            for member in self._members:
                if member.process is not None and member.process.returncode is None:
                    processes.signal_group(member.process.pid, signal.SIGKILL)
        self._stopping.set()

    async def run(self) -> None:
        """Run until `stop`. Returns when every process is gone."""
        self._say()
        await asyncio.gather(*(self._live(member) for member in self._members))
        self._say()

    def _neighbours(self, member: Member) -> tuple[list[Member], list[Member]]:
        """Whom it starts after, and who starts after it."""
        name, after = member.instance.component.name, member.instance.component.after
        grounds = [m for m in self._members if m.instance.component.name in after]
        dependents = [m for m in self._members if name in m.instance.component.after]
        return grounds, dependents

    async def _live(self, member: Member) -> None:
        """All lives of one process, until the stop or until it ended as it should."""
        grounds, dependents = self._neighbours(member)
        await self._unless_stopping(asyncio.gather(*(m.up.wait() for m in grounds)))
        while not self._stopping.is_set():
            if await self._once(member, dependents):
                break
            if not self._stopping.is_set():
                pause = member.restarts.died(time.time() - member.status.since)
                member.status.restarts = member.restarts.count
                await self._unless_stopping(asyncio.sleep(pause))
        member.gone.set()

    async def _once(self, member: Member, dependents: Sequence[Member]) -> bool:
        """One life of a process, from its start to its death; True if it ended as it should."""
        status, component = member.status, member.instance.component
        path = self._home.log(status.name)
        processes.shorten(path)
        process = member.process = await processes.spawn(member.command, ROOT, member.environment, path, component.nice)
        status.pid, status.since = process.pid, time.time()
        status.started_ticks = processes.start_ticks(process.pid)
        self._enter(member, State.STARTING)
        watching = [asyncio.create_task(self._watch(member)), asyncio.create_task(self._watch_alive(member))]
        ended = await self._unless_stopping(process.wait())
        for task in watching:
            task.cancel()
        if not ended:
            await asyncio.gather(*(m.gone.wait() for m in dependents))
            self._enter(member, State.STOPPING)
            await self._end(process, component.stop_s)
        code = await process.wait()
        processes.signal_group(process.pid, signal.SIGKILL)  # whatever it started and did not end
        status.pid = status.started_ticks = 0
        if self._stopping.is_set():
            self._enter(member, State.STOPPED)
        elif component.ends and code == 0:
            member.up.set()
            self._enter(member, State.DONE)
        else:
            self._enter(member, State.BROKEN, _epitaph(code, path))
        return member.status.state is State.DONE

    async def _end(self, process: asyncio.subprocess.Process, patience_s: float) -> None:
        """TERM, patience, KILL. One that is paused goes on first, else it could not hear the TERM."""
        processes.signal_group(process.pid, signal.SIGCONT)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
        except TimeoutError:
            log.warning("process %d did not stop within %.0f s and was killed", process.pid, patience_s)
            processes.signal_group(process.pid, signal.SIGKILL)

    async def _watch(self, member: Member) -> None:
        """Keep the state of a running process current."""
        component, status = member.instance.component, member.status
        if component.ends:
            return
        log_path = self._home.log(member.instance.name)
        while True:
            reason = await asyncio.to_thread(probe, component.ready, status.ports)
            if not reason:
                self._enter(member, State.READY)
                member.up.set()
            elif processes.is_paused(status.pid):
                self._enter(member, State.PAUSED)
            else:
                self._enter(member, State.UNREADY if member.up.is_set() else State.STARTING, reason)
            await asyncio.sleep(READY_POLL_S if status.state is State.READY else STARTING_POLL_S)
            processes.shorten(log_path)

    async def _watch_alive(self, member: Member) -> None:
        """Kill a process that calls itself ready and is not."""
        component, status = member.instance.component, member.status
        misses = 0
        while component.alive:
            await asyncio.sleep(ALIVE_POLL_S)
            if status.state is not State.READY:
                misses = 0
            elif reason := await asyncio.to_thread(probe, component.alive, status.ports):
                misses += 1
                log.warning("%s does not work, miss %d of %d: %s", status.name, misses, ALIVE_MISSES, reason)
                if misses == ALIVE_MISSES:
                    processes.signal_group(status.pid, signal.SIGKILL)
            else:
                misses = 0

    async def _unless_stopping(self, work: Awaitable[object]) -> bool:
        """Wait for it, or for the stop if that comes first; True if it was done."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            return False
        return True

    def _enter(self, member: Member, state: State, message: str = "") -> None:
        status = member.status
        if (status.state, status.message) == (state, message):
            return
        if status.state is not state:
            log.info("%s: %s%s", status.name, state, f" ({message})" if message else "")
        status.state, status.message = state, message
        self._say()

    def _say(self) -> None:
        self.status.state = self._overall()
        self._home.write_status(self.status)
        self._changed(self.status)

    def _overall(self) -> State:
        if all(m.gone.is_set() for m in self._members) and self._stopping.is_set():
            return State.STOPPED
        if self._stopping.is_set():
            return State.STOPPING
        if all(m.status.state in GOOD for m in self._members):
            return State.READY
        return State.UNREADY if all(m.up.is_set() for m in self._members) else State.STARTING


def _epitaph(code: int, log_path: Path) -> str:
    """How it died, for people."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    last = processes.tail(log_path, 1)
    return f"ended with status {code}" + (f": {last}" if last else "")
