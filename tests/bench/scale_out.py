"""Throughput with 1, 2 and 4 simulated workers against linear."""

from tests.bench.measure import Options, Result, bench_stack, median, run_load, table

TARGET = 0.9
SLOTS, TOKENS = 4, 64  # so few that slots, and not this machine, are the limit: a worker makes 200 tokens/s


def run(options: Options) -> Result:
    """Each worker is offered 1.3 times what its slots can do, so that slots and not arrivals are the limit."""
    seconds = min(options.seconds, 20)
    rows = []
    for i in range(options.runs):
        served: dict[int, float] = {}
        for workers in (1, 2, 4):
            with bench_stack({"MILLRACE_WORKER__SLOTS": str(SLOTS)}, worker_sim=workers) as stack:
                rate = 1.3 * workers * SLOTS * 50 / TOKENS
                m = run_load(
                    stack,
                    sessions=500,
                    rate=rate,
                    seconds=seconds,
                    warm=4,
                    max_tokens=TOKENS,
                    label=f"scale{i}{workers}",
                )
                served[workers] = m["done_per_s"] * TOKENS
        rows.append(
            {
                "1": served[1],
                "2": served[2],
                "4": served[4],
                "2/linear": served[2] / served[1] / 2,
                "4/linear": served[4] / served[1] / 4,
            }
        )
    table("tokens/s by number of workers", rows)
    value = median([min(r["2/linear"], r["4/linear"]) for r in rows])
    return Result("scale-out", value, "of linear", f">= {TARGET}", value >= TARGET, {"runs": rows})
