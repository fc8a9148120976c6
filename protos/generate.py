"""Generate `protos/gen` from `protos/millrace`.

    python protos/generate.py           write the generated code
    python protos/generate.py --check   fail if it is not current

The generated code is committed and never edited. The proto path, the package and the Python import are the same words.
"""

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def generate(into: Path) -> None:
    """Run protoc with the message, typing and gRPC plugins; every proto gets all three."""
    files = sorted(str(p.relative_to(HERE)) for p in HERE.glob("millrace/**/*.proto"))
    subprocess.run(
        [
            sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={HERE}",
            f"--python_out={into}", f"--pyi_out={into}", f"--grpc_python_out={into}", *files,
        ],
        check=True,
        cwd=HERE,
    )  # fmt: skip
    for stub in into.glob("millrace/**/*_pb2_grpc.py"):
        if "class " not in stub.read_text():  # a proto without a service
            stub.unlink()


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
    if "--check" not in sys.argv:
        gen.mkdir(exist_ok=True)
        generate(gen)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        differing = stale(Path(scratch), gen)
    for name in differing:
        print(f"protos/gen/{name} is not current: run `make protos`")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
