"""Time to first token p99 on the tiny LM in Triton, at 70 % of the knee."""

from tests.bench.measure import Options, Result, bench_stack, median, run_load, table

TARGET_S = 1.9
RATES = (4, 6, 8, 11, 15, 20, 27, 36, 50)


def run(options: Options) -> Result:
    """The knee is the highest rate whose answers keep up: 99 % done and TTFT p99 below the target."""
    rows = []
    with bench_stack(worker=2, worker_sim=0) as stack:

        def step(rate: float, seconds: float, label: str) -> dict[str, float]:
            m = run_load(stack, model="tiny", sessions=200, rate=rate, seconds=seconds, warm=4, label=label)
            row = {
                "rate": rate, "ttft p50 s": m["ttft"]["p50"] / 1000, "ttft p99 s": m["ttft"]["p99"] / 1000,
                "done": m["total"]["count"] / max(m["measured"], 1), "errors": m["errors"] + m["skipped"],
            }  # fmt: skip
            rows.append(row)
            return row

        knee = float(RATES[0])
        for rate in RATES:
            row = step(rate, min(options.seconds, 12), f"knee{rate}")
            if row["done"] < 0.99 or row["ttft p99 s"] > TARGET_S:
                break
            knee = float(rate)
        measured = [step(0.7 * knee, options.seconds, f"run{i}") for i in range(options.runs)]
    table("time to first token, tiny LM, 16 tokens", rows)
    value = median([r["ttft p99 s"] for r in measured])
    return Result(
        "ttft",
        value,
        "s",
        f"<= {TARGET_S}",
        value <= TARGET_S,
        {"knee_per_s": knee, "runs": [r["ttft p99 s"] for r in measured]},
    )
