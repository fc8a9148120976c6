"""Start, recognise and stop processes. Each component leads a process group of its own, so nothing of it is left behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

LOG_LIMIT_BYTES = 16 << 20
POLL_S = 0.05


def start_ticks(pid: int) -> int:
    """Kernel start time of a process in clock ticks since boot: with the pid it names a process for good. 0 if it is dead.

    A zombie is dead: only its parent has not looked yet.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def is_same(pid: int, ticks: int) -> bool:
    """Is this still the process that was started then?"""
    return ticks != 0 and start_ticks(pid) == ticks


def is_paused(pid: int) -> bool:
    """Was it stopped by a signal?"""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


async def spawn(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path, nice: int = 0
) -> asyncio.subprocess.Process:
    """Run a command with its output appended to `log`.

    It gets TERM when this process dies in whatever way (nice and setpriv each become what they run), and it leads
    a session of its own, so that the terminal's Ctrl-C reaches only the supervisor, which stops things in order.
    `nice` counts against other sessions too: a kernel with autogroup on weighs only sessions against each other.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            "nice", "-n", str(nice), "setpriv", "--pdeathsig", "TERM", *command,
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    if nice:
        _rank_session(process.pid, nice)
    return process


def _rank_session(leader: int, nice: int) -> None:
    with contextlib.suppress(OSError):  # a kernel without autogroup
        Path(f"/proc/{leader}/autogroup").write_text(str(nice))


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and all that it started; no one there is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end_leftovers(processes: Sequence[tuple[int, int]], patience_s: float = 5.0) -> list[int]:
    """End what an earlier supervisor left, given as (pid, start ticks); returns the pids that were still there."""
    left = [pid for pid, ticks in processes if is_same(pid, ticks)]
    ticks_of = dict(processes)
    for pid in left:
        signal_group(pid, signal.SIGCONT)
        signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while any(is_same(pid, ticks_of[pid]) for pid in left):
        if time.monotonic() > deadline:
            for pid in left:
                signal_group(pid, signal.SIGKILL)
        time.sleep(POLL_S)
    return left


def shorten(log: Path, limit: int = LOG_LIMIT_BYTES) -> None:
    """Keep a log below its limit: what there is moves to `<log>.1`, the file begins anew.

    Processes append to it, so they go on at its new end.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > limit:
            log.with_suffix(log.suffix + ".1").write_bytes(log.read_bytes())
            os.truncate(log, 0)


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
