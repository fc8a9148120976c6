"""Which event loops of a stack were held, from the metrics of each service."""

import re
import urllib.request

from services.cli.stack.handle import Stack

STALLS = re.compile(r"^millrace_loop_stalls_total (\S+)$", re.MULTILINE)


def stalls(stack: Stack) -> dict[str, float]:
    """Times that each service's loop was held for more than 50 ms, by process: a restarted one is another."""
    counts = {}
    for component in stack.status.components:
        if admin := component.ports.get("admin"):
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
                counts[f"{component.name} ({component.pid})"] = float(STALLS.search(answer.read().decode())[1])
    return counts
