"""What every bench needs: a stack, the load generator, CPU per process, medians, the report."""

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from services.cli.stack.handle import Stack

HERE = Path(__file__).parent
RESULTS = HERE / "results"
console = Console(width=120)


@dataclass(frozen=True)
class Options:
    """What the command line turns."""

    runs: int = 3
    seconds: float = 60.0


@dataclass(frozen=True)
class Result:
    """The last line of a bench."""

    name: str
    value: float
    unit: str
    target: str
    ok: bool
    detail: Mapping[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def bench_stack(environment: Mapping[str, str] | None = None, **counts: int) -> Iterator[Stack]:
    """A stack of its own on free ports: one of each service, the simulator, no Triton unless counted."""
    wanted = {"triton": 0, "worker": 0, "worker-sim": 1, "gateway": 1, "dispatcher": 1}
    wanted |= {name.replace("_", "-"): count for name, count in counts.items()}
    if wanted["worker"]:
        wanted["triton"] = 1
    with (
        tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder,
        Stack(Path(folder), ports="free", counts=wanted, environment=environment, tied=True) as stack,
    ):
        stack.wait_ready()
        _before_others(stack)
        wait_until_answering(stack, "tiny" if wanted["worker"] else "sim")
        yield stack


def _before_others(stack: Stack) -> None:
    """What else runs on the machine waits for the stack, where root may say so; among themselves its processes keep their ranks.

    A process here leads a session, and the kernel weighs sessions.
    """
    for component in stack.status.components:
        if component.pid:
            with contextlib.suppress(OSError):
                session = Path(f"/proc/{component.pid}/autogroup")
                rank = int(session.read_text().split()[-1])  # of "/autogroup-71 nice 5"
                session.write_text(str(rank - 20))


def wait_until_answering(stack: Stack, model: str, patience_s: float = 60) -> float:
    """Ask for one token until it comes; returns the instant (monotonic) it was there."""
    ends = time.monotonic() + patience_s
    while True:
        try:
            complete(stack, model, "hello", max_tokens=1)
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)
        else:
            return time.monotonic()


def complete(stack: Stack, model: str, prompt: str, **body: Any) -> dict[str, Any]:
    """One plain chat completion."""
    status = stack.status
    request = urllib.request.Request(
        f"http://{status.addresses('gateway', 'http')[0]}/v1/chat/completions",
        json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}], **body}).encode(),
        {"Authorization": f"Bearer {status.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def load_generator() -> Path:
    """The C program, built when its source is newer."""
    binary = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "millrace" / "wsload"
    source = HERE / "load" / "wsload.c"
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        binary.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-o", str(binary), str(source)], check=True)
    return binary


def start_load(stack: Stack, **options: Any) -> subprocess.Popen[str]:
    """Start the load generator against all gateways; options are its flags, `True` for a bare one."""
    status = stack.status
    ports = ",".join(address.rpartition(":")[2] for address in status.addresses("gateway", "http"))
    options = {"ports": ports, "key": status.key} | options
    flags = [
        part
        for name, value in options.items()
        for part in ([f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)]))
    ]
    return subprocess.Popen([str(load_generator()), *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish_load(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it measured. Raises RuntimeError with its words when it failed."""
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load generator failed: {errors}")
    if "error" in errors:
        console.print(errors.strip(), style="yellow", markup=False)
    measured: dict[str, Any] = json.loads(output)
    return measured


def run_load(stack: Stack, **options: Any) -> dict[str, Any]:
    """Start and finish."""
    return finish_load(start_load(stack, **options))


class CpuMeter:
    """CPU seconds each process of a stack used between `start` and `stop`, its children included."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._before: dict[str, float] = {}

    def _now(self) -> dict[str, float]:
        used = {}
        for component in self._stack.status.components:
            if component.pid:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(component.pid)
                    times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
                    used[component.name] = sum(t.user + t.system for t in times)
        return used

    def start(self) -> None:
        """Remember where each stands."""
        self._before = self._now()

    def stop(self) -> dict[str, float]:
        """Seconds since `start`, by instance."""
        return {name: used - self._before.get(name, 0.0) for name, used in self._now().items()}


def metric(stack: Stack, component: str, name: str) -> float:
    """Sum of a metric over the instances of a component and over its labels."""
    total = 0.0
    for address in stack.status.addresses(component, "admin"):
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
            for line in response.read().decode().splitlines():
                if line.startswith((f"{name} ", f"{name}{{")):
                    total += float(line.rpartition(" ")[2])
    return total


def wait_idle(stack: Stack, patience_s: float = 60) -> None:
    """Wait until nothing waits for the simulator and it runs nothing."""
    ends = time.monotonic() + patience_s
    while metric(stack, "dispatcher", "millrace_dispatcher_waiting_tasks") or metric(
        stack, "worker-sim", "millrace_worker_active_tasks"
    ):
        if time.monotonic() > ends:
            raise TimeoutError(f"the simulator is still at work after {patience_s:.0f} s")
        time.sleep(0.2)


def median(values: Sequence[float]) -> float:
    """Median, nan for none."""
    return statistics.median(values) if values else float("nan")


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of equal keys."""
    if not rows:
        return
    drawn = Table(title=title, title_justify="left")
    for name in rows[0]:
        drawn.add_column(name, justify="right")
    for row in rows:
        drawn.add_row(*[f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()])
    console.print(drawn)


def report(result: Result) -> None:
    """Keep the result with the machine's load, and print it as the last line."""
    RESULTS.mkdir(exist_ok=True)
    line = asdict(result)
    with (RESULTS / f"{result.name}.jsonl").open("a") as file:
        file.write(
            json.dumps(line | {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "load": os.getloadavg()})
            + "\n"
        )
    print(json.dumps(line))
