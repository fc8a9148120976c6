"""`Stack`: a stack seen from outside. `millrace up`, the test fixtures and the chaos runs all use it.

    with Stack(folder, ports="free", counts={"worker": 1}) as stack:      # starts, or finds the one that runs there
        stack.wait_ready()
        stack.kill("worker-1")

The supervisor is a process of its own (`python -m services.cli.stack`), so a stack outlives the program that started it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from services.cli.stack import processes
from services.cli.stack.core.report import ComponentStatus, StackStatus, State, missing
from services.cli.stack.home import Home
from services.cli.stack.software import ROOT

HOPELESS = 5  # deaths in a row before the first readiness
POLL_S = 0.05


class StackError(Exception):
    """The stack does not run or does not become ready; the message says what to look at."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Addresses of one gateway, host:port."""

    http: str
    grpc: str


class Stack:
    """A stack in `folder`. `tied`: it stops when the thread that started it ends, in whatever way."""

    def __init__(
        self,
        folder: Path,
        *,
        ports: Literal["default", "free"] = "default",
        counts: Mapping[str, int] | None = None,
        only: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        tied: bool = False,
    ) -> None:
        self.home = Home(folder)
        self._arguments = [f"--data={self.home.folder}", f"--ports={ports}"]
        self._arguments += [f"--count={name}={count}" for name, count in (counts or {}).items()]
        self._arguments += [f"--only={name}" for name in only]
        self._environment = dict(os.environ) | dict(environment or {})
        self._tied = tied
        self._supervisor: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self, patience_s: float = 10.0) -> bool:
        """Start the supervisor unless one runs; returns whether it was started. Does not wait until all is ready."""
        if self.home.is_held():
            return False
        self._bury()
        log = self.home.log("supervisor")
        log.parent.mkdir(parents=True, exist_ok=True)
        tie = ["setpriv", "--pdeathsig", "TERM"] if self._tied else []
        with log.open("wb") as output:
            self._supervisor = subprocess.Popen(
                [*tie, sys.executable, "-m", "services.cli.stack", *self._arguments],
                cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + patience_s
        while not ((status := self.home.read_status()) and status.pid == self._supervisor.pid):
            if self._supervisor.poll() is not None or time.monotonic() > deadline:
                raise StackError(processes.tail(log) or f"the supervisor does not start, see {log}")
            time.sleep(POLL_S)
        return True

    def stop(self, patience_s: float = 60.0) -> bool:
        """Stop politely and wait until all is gone; returns whether anything ran."""
        status = self.home.read_status()
        if status is None or not self.home.is_held():
            self._bury()
            return False
        os.kill(status.pid, signal.SIGTERM)
        deadline = time.monotonic() + patience_s
        while self.home.is_held():
            if time.monotonic() > deadline:
                raise StackError(f"the stack does not stop, see {self.home.log('supervisor')}")
            time.sleep(POLL_S)
        self._bury()
        return True

    def _bury(self) -> None:
        """Collect the exit status of a supervisor that this object started and that has let go of the folder."""
        if self._supervisor is not None:
            self._supervisor.wait()
            self._supervisor = None

    @property
    def status(self) -> StackStatus:
        """As it is now. Raises StackError if the stack does not run."""
        if (status := self.home.read_status()) is None or not self.home.is_held():
            raise StackError(f"no stack runs in {self.home.folder}. Start one with: millrace up")
        return status

    def progress(self, patience_s: float = 120.0) -> Iterator[StackStatus]:
        """The status again and again until all is ready. Raises StackError if that takes too long or is hopeless."""
        deadline = time.monotonic() + patience_s
        while True:
            if self._supervisor is not None and self._supervisor.poll() is not None:
                raise StackError(processes.tail(self.home.log("supervisor")))
            yield (status := self.status)
            if status.state is State.READY:
                return
            hopeless = [c for c in status.components if status.state is State.STARTING and c.restarts >= HOPELESS]
            if hopeless or time.monotonic() > deadline:
                raise StackError(_why(hopeless or missing(status.components)))
            time.sleep(POLL_S)

    def wait_ready(self, patience_s: float = 120.0) -> StackStatus:
        """The status once all is ready. Raises StackError."""
        return list(self.progress(patience_s))[-1]

    @property
    def key(self) -> str:
        """The local API key."""
        return self.status.key

    @property
    def gateways(self) -> list[Gateway]:
        """Where clients connect."""
        status = self.status
        pairs = zip(status.addresses("gateway", "http"), status.addresses("gateway", "grpc"), strict=True)
        return [Gateway(http, grpc) for http, grpc in pairs]

    def pid(self, name: str) -> int:
        """Process id of an instance; 0 while it is between two lives. Raises KeyError."""
        return self.status.named(name)[0].pid

    def signal(self, name: str, number: signal.Signals) -> list[int]:
        """Send a signal to an instance, or to all instances of a component; returns the pids. Raises KeyError."""
        pids = [c.pid for c in self.status.named(name) if c.pid]
        for pid in pids:
            processes.signal_group(pid, number)
        return pids

    def kill(self, name: str) -> None:
        """Send SIGKILL and wait until the supervisor saw it: `wait_ready` then means the next life. Raises KeyError."""
        dead = self.signal(name, signal.SIGKILL)
        while any(c.pid in dead for c in self.status.named(name)):
            time.sleep(POLL_S / 10)

    def pause(self, name: str) -> None:
        """Stop it where it stands: its connections stay open and nothing answers. Raises KeyError."""
        self.signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused one go on. Raises KeyError."""
        self.signal(name, signal.SIGCONT)


def _why(components: Sequence[ComponentStatus]) -> str:
    lines = [f"{c.name} is {c.state}: {c.message or 'no reason given'}" for c in components]
    logs = [f"--- {c.log}\n{processes.tail(Path(c.log))}" for c in components[:2]]
    return "\n".join(["not ready:", *lines, *logs])
