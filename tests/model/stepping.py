"""Where the scheduler may let another process move."""

import types
from collections.abc import Generator


@types.coroutine
def step() -> Generator[None, None, None]:
    """Let the scheduler choose who moves next."""
    yield
