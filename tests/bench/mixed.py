"""Short prompts' TTFT p99 beside 30 s answers, against the same without them."""

from tests.bench.measure import Options, Result, bench_stack, finish_load, median, run_load, start_load, table

TARGET = 1.5
SHORT_RATE, LONG_STREAMS, LONG_S = (
    50,
    60,
    30,
)  # what two cores carry with room: the queue is measured, not the processor


def run(options: Options) -> Result:
    """Interleaved: without, with, without, with; the ratio of each pair counts."""
    rows = []
    seconds = min(options.seconds, LONG_S - 5)
    with bench_stack() as stack:
        for i in range(options.runs):
            short = {"sessions": 500, "rate": SHORT_RATE, "seconds": seconds, "warm": 2}
            alone = run_load(stack, **short, label=f"alone{i}")
            long = start_load(
                stack,
                sessions=LONG_STREAMS,
                rate=0,
                seconds=seconds + 5,
                warm=1,
                max_tokens=LONG_S * 50,
                label=f"long{i}",
            )
            beside = run_load(stack, **short, label=f"beside{i}")
            finish_load(long)
            rows.append(
                {
                    "alone p99 ms": alone["ttft"]["p99"], "beside p99 ms": beside["ttft"]["p99"],
                    "ratio": beside["ttft"]["p99"] / alone["ttft"]["p99"], "errors": alone["errors"] + beside["errors"],
                }
            )  # fmt: skip
    table(f"short prompts at {SHORT_RATE}/s beside {LONG_STREAMS} answers of {LONG_S} s", rows)
    value = median([r["ratio"] for r in rows])
    return Result("mixed", value, "x", f"<= {TARGET}", value <= TARGET, {"runs": rows})
