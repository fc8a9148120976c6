"""`python -m tests.bench [NAME] [--runs N] [--seconds S]`."""

import argparse
import importlib
import pkgutil
import sys

from tests import bench
from tests.bench.measure import Options, report


def main() -> int:
    """Run one bench, or list them."""
    names = sorted(m.name for m in pkgutil.iter_modules(bench.__path__) if m.name not in {"__main__", "measure"})
    parser = argparse.ArgumentParser(
        prog="tests.bench", description=bench.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="a bench; without one they are listed")
    parser.add_argument("--runs", type=int, default=Options.runs, help="how often; the median counts")
    parser.add_argument("--seconds", type=float, default=Options.seconds, help="length of each measurement")
    arguments = parser.parse_args()
    modules = {name.replace("_", "-"): name for name in names}
    if arguments.name is None:
        for shown, name in modules.items():
            first = (importlib.import_module(f"tests.bench.{name}").__doc__ or "").splitlines()[0]
            print(f"{shown:18} {first}")
        return 0
    if arguments.name not in modules:
        parser.error(f"no bench {arguments.name!r}; there are: {', '.join(modules)}")
    module = importlib.import_module(f"tests.bench.{modules[arguments.name]}")
    report(module.run(Options(arguments.runs, arguments.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
