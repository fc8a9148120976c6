"""`millrace send`, `chat` and `watch`."""

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
