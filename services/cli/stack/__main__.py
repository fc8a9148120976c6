"""The detached supervisor; `Stack.start` and `millrace up --detach` start it. Its log is `logs/supervisor.log`."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from services.cli.stack.core.blueprint import BlueprintError
from services.cli.stack.runner import HeldError, Wanted, supervise
from services.cli.stack.software import MissingError


def main() -> None:
    """Run until TERM."""
    parser = argparse.ArgumentParser(prog="python -m services.cli.stack")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ports", choices=["default", "free"], default="default")
    parser.add_argument("--count", action="append", default=[], metavar="COMPONENT=N")
    parser.add_argument("--only", action="append", default=[], metavar="COMPONENT")
    given = parser.parse_args()
    counts = {name: int(count) for name, _, count in (c.partition("=") for c in given.count)}
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(supervise(Wanted(given.data, given.ports == "free", counts, given.only)))
    except HeldError as folder:
        sys.exit(f"a stack runs already in {folder}")
    except (MissingError, BlueprintError) as reason:
        sys.exit(str(reason))


if __name__ == "__main__":
    main()
