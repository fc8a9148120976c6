"""How long text gathers."""

import pytest

from services.worker.core.tick import Tick


def test_a_tick_is_the_longer_the_busier_the_loop_is() -> None:
    """The shortest up to 60 %, the longest from 90 %, a straight line between."""
    tick = Tick(0.010, 0.050)
    assert [tick.adapt(busy) for busy in (0.0, 0.6, 0.75, 0.9, 1.0)] == pytest.approx(
        [0.010, 0.010, 0.030, 0.050, 0.050]
    )


@pytest.mark.parametrize(("fixed", "flushing"), [(0.3, 0.4), (0.5, 0.3), (0.2, 0.7)])
def test_a_tick_settles_where_a_longer_one_would_make_the_loop_less_busy(fixed: float, flushing: float) -> None:
    """`fixed` of the loop is work per token, `flushing` what rounds cost at the shortest tick; busy lags by a second."""
    tick, busy, lengths = Tick(0.010, 0.050), 0.0, []
    for _ in range(200):
        busy += (min(fixed + flushing * 0.010 / tick.length_s, 1.0) - busy) * 0.05
        lengths.append(tick.adapt(busy))
    assert 0.010 < lengths[-1] < 0.050
    assert max(lengths[100:]) - min(lengths[100:]) < 0.0005


def test_flushes_are_at_least_half_a_tick_apart() -> None:
    """First texts go at once, but two flushes never come closer than this."""
    assert Tick(0.010, 0.050).gap_s == 0.005
