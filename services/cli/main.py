"""`millrace`: the command line."""

import sys

import typer

from services.cli import dead_letters, topics
from services.cli.stack import commands as stack
from services.cli.stack.core.blueprint import BlueprintError
from services.cli.stack.handle import StackError
from services.cli.stack.software import MissingError
from services.cli.talk import commands as talk

app = typer.Typer(
    name="millrace",
    help="Run Millrace on this machine and talk to it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
stack.register(app)
talk.register(app)
app.add_typer(topics.app, name="topics")
app.add_typer(dead_letters.app, name="dead")


def main() -> None:
    """Run a command; what a person can mend is one sentence, not a trace."""
    try:
        app()
    except (StackError, MissingError, BlueprintError) as reason:
        print(reason, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
