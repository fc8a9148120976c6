"""How long text gathers."""

import pytest

from services.worker.core.tick import Tick


def test_a_tick_grows_while_the_loop_is_busy_and_shrinks_when_it_has_time() -> None:
    """Between its shortest and its longest, a step at a time."""
    tick = Tick(0.010, 0.050)
    grown = [tick.adapt(0.61) for _ in range(6)]
    assert grown == pytest.approx([0.015, 0.0225, 0.03375, 0.050, 0.050, 0.050])
    shrunk = [tick.adapt(0.60) for _ in range(6)]
    assert shrunk == pytest.approx([0.0333, 0.0222, 0.0148, 0.010, 0.010, 0.010], abs=1e-4)


def test_flushes_are_at_least_half_a_tick_apart() -> None:
    """First texts go at once, but two flushes never come closer than this."""
    assert Tick(0.010, 0.050).gap_s == 0.005
