"""Who pays for the start of what tests share."""

from collections.abc import Collection, Iterable

import pytest


def own_time_only(items: Iterable[pytest.Item], shared: Collection[str], timeout_s: float = 60.0) -> None:
    """Let tests that use one of these fixtures pay for their own time only, unless they name a timeout of their own.

    Whoever comes first starts what the fixture shares, which has a patience of its own. For `pytest_collection_modifyitems`.
    """
    for item in items:
        if not item.get_closest_marker("timeout") and set(shared) & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(timeout_s, func_only=True))
