"""Names of texts and entries."""

import doctest

import pytest

from services.tasklog.core import beginning, ids, reading


@pytest.mark.parametrize("module", [ids, reading, beginning])
def test_the_worked_examples_are_true(module):
    """What the docstrings show is what happens."""
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("gen", [0, 1, 35, 36, 1296, (1_764_000_000_000 << 20) + 3, (1 << 63) - 1])
def test_a_gen_survives_its_name(gen):
    """A client hands back what it got."""
    assert ids.parse_gen(ids.gen_text(gen)) == gen


@pytest.mark.parametrize(
    "text", ["0", "01", "-1", "+1", " 1", "1_0", "A", "z" * 13, "1" * 14, "1" * 99, "\u0661", "1\n"]
)
def test_what_no_reader_was_ever_given_is_refused(text):
    """No sign, no blank, no underscore, no upper case, no other digits, nothing above 63 bits."""
    with pytest.raises(ValueError, match="names no text"):
        ids.parse_gen(text)


def test_a_routers_attempts_rise_with_time_and_stay_below_a_dispatchers():
    """Whatever the tries count, a later try is a higher attempt; every dispatcher outranks it."""
    at = 1_764_000_000.0
    numbers = [ids.attempt_of_a_try(tries, now) for now in (at, at + 0.001, at + 60) for tries in (1, 2, 255)]
    assert numbers == sorted(set(numbers))
    assert ids.attempt_of_a_try(10**6, at) < ids.attempt_of_a_try(1, at + 0.001)
    assert ids.attempt_of_a_try(10**6, 10**10) < ids.FIRST_OF_A_DISPATCHER < int(at * 1000) << 20
