"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from services.cli.stack.handle import Stack
from services.cli.stack.software import state_dir

Data: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="MILLRACE_DATA",
        help="Folder of the stack: data, logs, secrets, status.",
        default_factory=state_dir,
        show_default="$XDG_STATE_HOME/millrace",
    ),
]
Bootstrap: TypeAlias = Annotated[str, typer.Option(help="Kafka's address; by default that of the stack here.")]


def kafka_address(bootstrap: str, data: Path) -> str:
    """The address given, or that of the stack on this machine. Raises StackError if there is none."""
    return bootstrap or Stack(data).status.addresses("kafka", "port")[0]
