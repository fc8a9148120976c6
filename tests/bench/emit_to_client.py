"""Text reaches the worker -> client p99: 400 streams at 50 tokens/s; the simulator writes the instant into each token."""

from tests.bench.measure import Options, Result, bench_stack, median, metric, run_load, table, wait_idle

BEYOND_TICK_MS = 15.0
STREAMS = 400


def run(options: Options) -> Result:
    """All streams begin at once and run through the measurement."""
    rows = []
    with bench_stack() as stack:
        for i in range(options.runs):
            tokens = int((options.seconds + 6) * 50)
            m = run_load(
                stack,
                sessions=STREAMS,
                rate=0,
                seconds=options.seconds,
                warm=3,
                max_tokens=tokens,
                stamped=True,
                label=f"emit{i}",
            )
            tick = 1000 * metric(stack, "worker-sim", "millrace_worker_tick_seconds")
            wait_idle(stack)  # their clients are gone, the tasks go on: the next run would have twice the streams
            rows.append(
                {
                    "p50 ms": m["emit"]["p50"], "p99 ms": m["emit"]["p99"], "p99.9 ms": m["emit"]["p999"],
                    "tick ms": tick, "tokens/s": m["emit"]["count"] / options.seconds, "frames/s": m["deltas_per_s"],
                }
            )  # fmt: skip
    table(f"emit to client, {STREAMS} streams x 50 tokens/s", rows)
    value, tick = median([r["p99 ms"] for r in rows]), median([r["tick ms"] for r in rows])
    return Result(
        "emit-to-client",
        value,
        "ms",
        f"<= tick ({tick:.0f}) + {BEYOND_TICK_MS:.0f}",
        value <= tick + BEYOND_TICK_MS,
        {"runs": rows},
    )
