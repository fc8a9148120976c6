"""Memory of an idle session: (RSS at 10,000 - RSS at 0) / 10,000, without TLS."""

import subprocess
import time

import psutil

from services.cli.stack.handle import Stack
from tests.bench.measure import Options, Result, bench_stack, median, metric, start_load, table

TARGET_KB = 4.0
SESSIONS = 10_000
PATIENCE_S = 60.0
STEADY_S = 3.0  # without a change of the gateway's memory: what handshakes needed is gone


def run(options: Options) -> Result:
    """A fresh gateway for each run; sessions are authenticated and greeted, then idle."""
    rows = []
    for _ in range(options.runs):
        with bench_stack() as stack:
            gateway = psutil.Process(stack.pid("gateway-1"))
            before = steady_rss(gateway)
            load = start_load(stack, sessions=SESSIONS, rate=0, max_tokens=0, hold=10 * PATIENCE_S, seconds=1, warm=0)
            try:
                wait_until_open(stack, load)
                after = steady_rss(gateway)
                wait_until_open(stack, load, patience_s=0)
            finally:
                load.kill()
                load.communicate()
            rows.append(
                {
                    "RSS at 0 MB": before / 2**20,
                    "RSS at 10,000 MB": after / 2**20,
                    "KB/session": (after - before) / SESSIONS / 1024,
                }
            )
    table("idle sessions", rows)
    value = median([r["KB/session"] for r in rows])
    return Result("session-memory", value, "KB", f"<= {TARGET_KB:.0f}", value <= TARGET_KB, {"runs": rows})


def wait_until_open(stack: Stack, load: subprocess.Popen[str], patience_s: float = PATIENCE_S) -> None:
    """Wait until the gateway counts every session as open. Raises RuntimeError: the figure would flatter."""
    ends = time.monotonic() + patience_s
    while (there := metric(stack, "gateway", "millrace_gateway_sessions")) != SESSIONS:
        if time.monotonic() > ends or load.poll() is not None:
            raise RuntimeError(f"{there:.0f} of {SESSIONS} sessions are open")
        time.sleep(0.2)


def steady_rss(process: psutil.Process) -> int:
    """Its resident memory, bytes, once it does not change any more."""
    rss, since = process.memory_info().rss, time.monotonic()
    while time.monotonic() - since < STEADY_S:
        time.sleep(0.2)
        if (now := process.memory_info().rss) != rss:
            rss, since = now, time.monotonic()
    return rss
