"""Generate `protos/gen` from `protos/millrace`.

    python protos/generate.py           write the generated code
    python protos/generate.py --check   fail if it is not current

The generated code is committed and never edited. The proto path, the package and the Python import are the same words.
"""

import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FOR_CLIENTS = "millrace/inference/v1/inference.proto"


def generate(into: Path) -> None:
    """Messages and their types of every proto; stubs of what clients call by gRPC (services use plain connections)."""
    files = sorted(str(p.relative_to(HERE)) for p in HERE.glob("millrace/**/*.proto"))
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={HERE}"]
    subprocess.run([*protoc, f"--python_out={into}", f"--pyi_out={into}", *files], check=True, cwd=HERE)
    subprocess.run([*protoc, f"--grpc_python_out={into}", FOR_CLIENTS], check=True, cwd=HERE)


def stale(fresh: Path, committed: Path) -> list[str]:
    """Names of files that differ, are missing or are left over."""
    names = {
        str(p.relative_to(root))
        for root in (fresh, committed)
        for p in root.glob("millrace/**/*.py*")
        if p.suffix != ".pyc"
    }
    return sorted(
        n for n in names
        if not ((fresh / n).exists() and (committed / n).exists() and filecmp.cmp(fresh / n, committed / n, shallow=False))
    )  # fmt: skip


def main() -> int:
    """Write or check; the exit status says whether the committed code was current."""
    gen = HERE / "gen"
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        if "--check" not in sys.argv:
            shutil.rmtree(gen, ignore_errors=True)
            shutil.copytree(fresh, gen)
            return 0
        differing = stale(fresh, gen)
    for name in differing:
        print(f"protos/gen/{name} is not current: run `make protos`")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
