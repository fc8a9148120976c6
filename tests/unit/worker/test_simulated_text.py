"""What the simulator says."""

from itertools import islice

import pytest

from services.worker.core.simulated_text import (
    Behaviour,
    behaviour,
    simulated_count,
    simulated_text,
    simulated_tokens,
)


def test_the_text_follows_from_the_prompt_alone():
    """Longer answers to a prompt begin with the shorter ones; another prompt has another answer."""
    assert simulated_text("a prompt", 50).startswith(simulated_text("a prompt", 20))
    assert simulated_text("a prompt", 50) != simulated_text("b prompt", 50)


def test_any_token_can_be_computed_by_its_number():
    """Beginning at token 30 gives what follows the first 30."""
    tail = "".join(islice(simulated_tokens("p", 30), 10))
    assert simulated_text("p", 30) + tail == simulated_text("p", 40)


def test_the_text_has_characters_of_one_to_four_bytes():
    """An answer of some length exercises every width of UTF-8."""
    widths = {len(character.encode()) for character in simulated_text("p", 300)}
    assert widths == {1, 2, 3, 4}


@pytest.mark.parametrize("tokens", [0, 1, 7, 300])
def test_counting_gives_back_the_number_of_tokens(tokens: int):
    """A text of n tokens has n words, the last one counts while it is in the making."""
    text = simulated_text("p", tokens)
    assert simulated_count(text) == simulated_count(text[:-1]) == tokens


def test_a_prompt_asks_for_behaviour():
    """The last directive counts; a prompt without one asks for nothing."""
    asked = "x [[sim tokens=1]] y [[sim tokens=20 rate=10 prefill=0.5 fault=hang@5]] z"
    assert behaviour(asked) == Behaviour(tokens=20, rate=10.0, prefill_s=0.5, fault="hang", fault_at=5)
    assert behaviour("[[simulate]] [sim tokens=1]") == Behaviour()


@pytest.mark.parametrize(
    "wrong", ["tokens=many", "fault=explode@1", "colour=red", "fault=hang@x", "rate=0", "tokens=0"]
)
def test_a_directive_that_is_not_understood_is_refused(wrong: str):
    """Silence would look like a wrong simulator."""
    with pytest.raises(ValueError):
        behaviour(f"[[sim {wrong}]]")


def test_a_prompt_can_ask_for_the_time_instead_of_words():
    """`stamp` stands alone; what else the directive says still counts."""
    assert behaviour("[[sim stamp rate=10]] hello") == Behaviour(stamped=True, rate=10.0)
