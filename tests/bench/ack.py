"""Acknowledgment p99 including the Kafka commit: 10,000 open sessions, 500 prompts/s open loop; the knee beside it."""

from tests.bench.measure import CpuMeter, Options, Result, bench_stack, median, run_load, table

TARGET_MS, AIM_MS = 45.0, 20.0
SESSIONS = 10_000
KNEE_RATES = (700, 850, 1000, 1200, 1400)
SOURCES = 4  # addresses of the clients: each step opens its sessions while the ports of the one before it still linger


def run(options: Options) -> Result:
    """Median of the runs at 500/s; then one step each up to the rate whose p99 no longer holds or whose answers are late."""
    rows = []
    with bench_stack() as stack:
        cpu = CpuMeter(stack)

        def step(rate: float, seconds: float, label: str) -> dict[str, float]:
            cpu.start()
            m = run_load(stack, sessions=SESSIONS, sources=SOURCES, rate=rate, seconds=seconds, warm=5, label=label)
            busy = sum(cpu.stop().values()) + m["client_cpu_s"]
            row = {
                "rate": rate,
                "ack p50 ms": m["ack"]["p50"],
                "ack p99 ms": m["ack"]["p99"],
                "ttft p99 ms": m["ttft"]["p99"],
                "total p99 ms": m["total"]["p99"],
                "done": m["total"]["count"] / max(m["measured"], 1),
                "errors": m["errors"] + m["skipped"],
                "CPU ms/prompt": 1000 * busy / max(m["sent"], 1),
            }
            rows.append(row)
            return row

        measured = [step(500, options.seconds, f"run{i}") for i in range(options.runs)]
        knee, at_1000 = 500.0, None
        for rate in KNEE_RATES:
            row = step(rate, min(options.seconds, 15), f"knee{rate}")
            if rate == 1000:
                at_1000 = row["ack p99 ms"]
            if row["ack p99 ms"] > TARGET_MS or row["done"] < 0.99 or row["errors"]:
                break
            knee = float(rate)
    table(f"acknowledgment, {SESSIONS} sessions, 16 tokens at 50/s", rows)
    value = median([r["ack p99 ms"] for r in measured])
    detail = {"runs": [r["ack p99 ms"] for r in measured], "aim_ms": AIM_MS, "at_1000_ms": at_1000, "knee_per_s": knee}
    return Result("ack", value, "ms", f"<= {TARGET_MS:.0f}", value <= TARGET_MS, detail)
