"""From empty caches and data to the first token, and warm."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.measure import HERE, Options, Result, median, table

COLD_S, WARM_S = 300.0, 25.0
ROOT = HERE.parent.parent


def first_token(clone: Path, home: Path) -> float:
    """`make up`, then one prompt to the tiny LM; seconds until its answer is complete. Stops the stack."""
    environment = os.environ | {
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_STATE_HOME": str(home / "state"),
        "PIP_CACHE_DIR": str(home / "pip"),
        "UV_CACHE_DIR": str(home / "uv"),
        "MAVEN_OPTS": f"-Dmaven.repo.local={home / 'm2'}",
    }
    for inherited in ("VIRTUAL_ENV", "PYTHONPATH"):
        environment.pop(inherited, None)
    began = time.monotonic()
    try:
        subprocess.run(["make", "up"], cwd=clone, env=environment, check=True)
        subprocess.run(
            [clone / ".venv/bin/millrace", "send", "hello", "--max-tokens", "1"], cwd=clone, env=environment, check=True
        )
        return time.monotonic() - began
    finally:
        subprocess.run(["make", "down"], cwd=clone, env=environment, check=False)


def run(options: Options) -> Result:
    """Cold once (system packages present, everything else empty), then warm as often as asked."""
    with tempfile.TemporaryDirectory(prefix="millrace-cold-") as scratch:
        clone, home = Path(scratch) / "millrace", Path(scratch) / "home"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        cold = first_token(clone, home)
        warm = [first_token(clone, home) for _ in range(options.runs)]
    table("to the first token", [{"cold s": cold, **{f"warm {i + 1} s": w for i, w in enumerate(warm)}}])
    value = median(warm)
    ok = cold <= COLD_S and value <= WARM_S
    return Result(
        "cold-start",
        value,
        "s warm",
        f"cold <= {COLD_S:.0f} s, warm <= {WARM_S:.0f} s",
        ok,
        {"cold_s": cold, "warm_s": warm},
    )
