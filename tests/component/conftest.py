"""Services run in the process of these tests, so a callback that holds an event loop fails the test and is named."""

from tests.support.held_loops import pytest_runtest_call

__all__ = ["pytest_runtest_call"]
