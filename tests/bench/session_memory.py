"""Memory of an idle session: (RSS at 10,000 - RSS at 0) / 10,000, without TLS."""

import time

import psutil

from tests.bench.measure import Options, Result, bench_stack, median, start_load, table

TARGET_KB = 4.0
SESSIONS = 10_000


def run(options: Options) -> Result:
    """A fresh gateway for each run; sessions are authenticated and greeted, then idle."""
    rows = []
    for _ in range(options.runs):
        with bench_stack() as stack:
            gateway = psutil.Process(stack.pid("gateway-1"))
            before = gateway.memory_info().rss
            load = start_load(stack, sessions=SESSIONS, rate=0, max_tokens=0, hold=20, seconds=1, warm=0)
            time.sleep(15)
            after = gateway.memory_info().rss
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
