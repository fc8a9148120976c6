"""No service of the stack may hold its event loop while a test runs."""

from collections.abc import Iterator

import pytest

from tests.support.stalls import LoopLogs


@pytest.fixture(autouse=True)
def quick_loops(request: pytest.FixtureRequest) -> Iterator[None]:
    """No service held its event loop for too long while the test ran; its start does not count."""
    if "stack" not in request.fixturenames:
        yield
        return
    logs = LoopLogs(request.getfixturevalue("stack"))
    yield
    stalls = logs.stalls()
    assert not stalls, "event loops were held:\n  " + "\n  ".join(stalls)
