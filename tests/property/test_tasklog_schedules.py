"""The token protocol under random schedules: crashes, zombies, lost frames, a Redis that forgets."""

import random

import pytest

from tests.model.schedules import Violation, World
from tests.model.wrong_designs import BAD

SCHEDULES = 1000
ENOUGH_TO_CATCH = 6000


async def test_no_schedule_shows_a_wrong_byte_or_a_second_end():
    """Every reader gets a prefix of one answer per gen, no byte of a fenced attempt, one end, and usage agrees."""
    first = random.randrange(10**9)
    for seed in range(first, first + SCHEDULES):
        try:
            World(seed).run()
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")


@pytest.mark.parametrize("bad", BAD)
async def test_a_wrong_design_is_caught(bad):
    """So the schedules can tell right from wrong."""
    for seed in range(ENOUGH_TO_CATCH):
        try:
            World(seed, bad).run()
        except Violation:
            return
    pytest.fail(f"{ENOUGH_TO_CATCH} schedules did not notice that {BAD[bad]}")
