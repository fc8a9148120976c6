"""500 identical prompts at once on 2 gateways at temperature 0: how many engine calls?"""

import time

from tests.bench.measure import Options, Result, bench_stack, metric, run_load, table

PROMPTS = 500
ATTEMPTS = "millrace_worker_attempts_total"


def run(options: Options) -> Result:
    """The worst run counts, not the median."""
    rows = []
    with bench_stack(gateway=2, cache=2) as stack:
        while not metric(stack, "worker-sim", ATTEMPTS):  # the stack's first answer counts once its end is durable
            time.sleep(0.1)
        for i in range(options.runs):
            before = metric(stack, "worker-sim", ATTEMPTS)
            m = run_load(
                stack,
                sessions=PROMPTS,
                rate=0,
                seconds=8,
                warm=0.5,
                max_tokens=64,
                cached=True,
                input=f"the same for all, run {i}",
                label=f"flight{i}",
            )
            calls = metric(stack, "worker-sim", ATTEMPTS) - before
            rows.append(
                {
                    "engine calls": calls,
                    "answered": m["done"],
                    "not completed": m["not_completed"],
                    "errors": m["errors"],
                }
            )
    table(f"{PROMPTS} identical prompts", rows)
    value = max(r["engine calls"] for r in rows)
    ok = value == 1 and all(r["answered"] == PROMPTS and not r["not completed"] for r in rows)
    return Result("single-flight", value, "engine calls", "== 1", ok, {"runs": rows})
