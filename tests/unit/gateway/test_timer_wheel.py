"""Coarse deadlines, many of them."""

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.core.timer_wheel import TimerWheel

instants = st.floats(0, 50, allow_nan=False)


def test_an_item_is_due_once_and_never_early() -> None:
    """It comes with the first look at or after its instant, and only with that one."""
    wheel = TimerWheel[str](tick_s=1.0, now=10.0)
    wheel.schedule("a", 12.5)
    assert wheel.advance(12.4) == []
    assert wheel.advance(13.0) == ["a"]
    assert wheel.advance(99.0) == []


def test_a_cancelled_item_is_never_due() -> None:
    """Cancelling takes the tick that scheduling gave; cancelling again, or too late, changes nothing."""
    wheel = TimerWheel[str](tick_s=1.0, now=0.0)
    tick = wheel.schedule("a", 2.0)
    kept = wheel.schedule("b", 2.0)
    wheel.cancel("a", tick)
    wheel.cancel("a", tick)
    assert wheel.advance(5.0) == ["b"]
    wheel.cancel("b", kept)
    assert len(wheel) == 0


def test_an_instant_in_the_past_is_due_at_the_next_tick() -> None:
    """Nothing scheduled late is lost."""
    wheel = TimerWheel[str](tick_s=1.0, now=0.0)
    wheel.advance(10.0)
    assert wheel.schedule("late", 3.0) > 0
    assert wheel.advance(11.0) == ["late"]


def test_a_clock_that_stands_still_or_stalls_loses_nothing() -> None:
    """Looking twice at one instant, or after an hour's pause, gives every item once, in order of ticks."""
    wheel = TimerWheel[int](tick_s=0.5, now=0.0)
    for second in (30, 10, 20):
        wheel.schedule(second, second)
    assert wheel.advance(0.0) == wheel.advance(0.0) == []
    assert wheel.advance(3600.0) == [10, 20, 30]


@given(st.lists(instants, max_size=30), st.lists(instants, max_size=30).map(sorted), st.sampled_from([0.25, 1.0, 7.0]))
def test_every_item_comes_once_and_within_a_tick(deadlines: list[float], looks: list[float], tick_s: float) -> None:
    """Against the plain rule: an item is taken by the first look at or after its tick has passed, never before its instant."""
    wheel = TimerWheel[int](tick_s, now=0.0)
    for item, at in enumerate(deadlines):
        wheel.schedule(item, at)
    taken: dict[int, float] = {}
    for look in [*looks, 100.0]:
        for item in wheel.advance(look):
            assert item not in taken
            assert deadlines[item] <= look
            taken[item] = look
        for item, at in enumerate(deadlines):
            assert item in taken or at + 2 * tick_s > look  # a past instant waits for the next tick
    assert len(taken) == len(deadlines)
