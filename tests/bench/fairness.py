"""4 tenants, one asks 20 times as much: Jain's index of the tokens served to each."""

import secrets
import time
from base64 import b32encode

import yaml

from services.cli.stack.handle import Stack
from services.cli.stack.home import write_private
from tests.bench.measure import Options, Result, bench_stack, finish_load, median, start_load, table

TARGET = 0.98
SLOTS = 16  # 50 answers of 16 tokens a second
TENANTS = ("ada", "bob", "cyd", "dan")
RATES = {"ada": 320.0, "bob": 16.0, "cyd": 16.0, "dan": 16.0}  # fair share: 12.5 a second each


def add_tenants(stack: Stack) -> dict[str, str]:
    """Tenant manifests into the folder that the publisher watches; name to key."""
    keys = {name: "mr_" + b32encode(secrets.token_bytes(20)).decode().lower() for name in TENANTS}
    for name, key in keys.items():
        documents = [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"key": key}},
            {
                "apiVersion": "millrace.dev/v1alpha1",
                "kind": "Tenant",
                "metadata": {"name": name},
                "spec": {"keys": [{"name": name, "secretRef": {"name": name}}]},
            },
        ]
        write_private(stack.home.manifests / f"tenant-{name}.yaml", yaml.safe_dump_all(documents).encode())
    time.sleep(3)  # until it is published
    return keys


def jain(shares: list[float]) -> float:
    """Jain's fairness index (Jain, Chiu, Hawe 1984): 1 = all equal, 1/n = one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares))


def run(options: Options) -> Result:
    """Everybody asks for more than a fair share, so that fair means equal."""
    rows = []
    seconds = min(options.seconds, 25)
    for i in range(options.runs):
        # A stack for each: ada leaves a backlog of minutes, which would be served as hers in the next run.
        with bench_stack({"MILLRACE_WORKER__SLOTS": str(SLOTS)}) as stack:
            keys = add_tenants(stack)
            loads = {
                name: start_load(
                    stack,
                    key=keys[name],
                    sessions=1000 if name == "ada" else 300,
                    rate=RATES[name],
                    seconds=seconds,
                    warm=8,
                    label=f"{name}{i}",
                )
                for name in TENANTS
            }
            served = {name: 16 * finish_load(load)["done_per_s"] for name, load in loads.items()}
            rows.append(served | {"Jain": jain(list(served.values()))})
    table("tokens/s served to each tenant, ada asking for 20 times as much", rows)
    value = median([r["Jain"] for r in rows])
    return Result("fairness", value, "Jain", f">= {TARGET}", value >= TARGET, {"runs": rows})
