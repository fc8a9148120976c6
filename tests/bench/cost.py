"""Where the CPU goes: milliseconds per prompt and microseconds per token, by process; a table and a picture."""

from tests.bench.measure import RESULTS, CpuMeter, Options, Result, bench_stack, median, run_load, table

RATE = 300
TOKENS = (16, 128)


def run(options: Options) -> Result:
    """Two answer lengths at the same token rate: their difference is the cost of a token, the rest that of a prompt."""
    seconds = min(options.seconds, 20)
    costs: dict[int, dict[str, list[float]]] = {n: {} for n in TOKENS}
    with bench_stack() as stack:
        cpu = CpuMeter(stack)
        for i in range(options.runs):
            for tokens in TOKENS:
                rate = RATE * TOKENS[0] / tokens
                cpu.start()
                m = run_load(
                    stack,
                    sessions=1000,
                    rate=rate,
                    seconds=seconds,
                    warm=1,
                    max_tokens=tokens,
                    label=f"cost{i}{tokens}",
                )
                for name, used in (cpu.stop() | {"load generator": m["client_cpu_s"]}).items():
                    costs[tokens].setdefault(name, []).append(1000 * used / m["sent"])
    rows = []
    for name in costs[TOKENS[0]]:
        short, long = median(costs[TOKENS[0]][name]), median(costs[TOKENS[1]].get(name, [0.0]))
        token = (long - short) / (TOKENS[1] - TOKENS[0])
        rows.append(
            {
                "process": name,
                "ms/prompt": max(short - token * TOKENS[0], 0.0),
                "us/token": max(1000 * token, 0.0),
                "ms/prompt of 16": short,
            }
        )
    rows.sort(key=lambda row: -row["ms/prompt of 16"])
    total = {"process": "all", **{k: sum(r[k] for r in rows) for k in ("ms/prompt", "us/token", "ms/prompt of 16")}}
    table("CPU by process", [*rows, total])
    draw(rows)
    return Result(
        "cost",
        total["ms/prompt of 16"],
        "ms CPU per prompt of 16 tokens",
        "a table and a picture",
        ok=True,
        detail={"rows": rows},
    )


def draw(rows: list[dict[str, float]]) -> None:
    """Bars by process, into results/cost.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [r for r in rows if r["ms/prompt of 16"] > 0.005]
    names = [r["process"] for r in shown]
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(shown) + 1.6), layout="constrained")
    prompt = [r["ms/prompt"] for r in shown]
    axes.barh(names, prompt, color="#2f6f8f", label="per prompt")
    axes.barh(names, [r["us/token"] * 16 / 1000 for r in shown], left=prompt, color="#e0a458", label="16 tokens")
    axes.invert_yaxis()
    axes.set_xlabel("CPU milliseconds for one prompt with an answer of 16 tokens")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "cost.png", dpi=120)
    plt.close(figure)
    print(f"picture: {RESULTS / 'cost.png'}")
