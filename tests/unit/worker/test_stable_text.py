"""Cumulative engine text to final pieces."""

from services.worker.core.stable_text import Contradiction, Piece, StableText


def pieces(*cumulative: str, stop: tuple[str, ...] = ()) -> list[str]:
    text = StableText(stop)
    out = []
    for number, so_far in enumerate(cumulative, 1):
        piece = text.take(so_far, last=number == len(cumulative))
        assert isinstance(piece, Piece)
        out.append(piece.text)
    return out


def test_text_comes_out_as_it_comes_in():
    """Without anything to hold back, each piece is what was added."""
    assert pieces("Hel", "Hello", "Hello, you") == ["Hel", "lo", ", you"]


def test_a_character_in_the_making_is_held_back():
    """U+FFFD at the end waits for the character it becomes."""
    assert pieces("caf\ufffd", "café", "café!") == ["caf", "é", "!"]


def test_a_real_replacement_character_comes_out_when_more_follows():
    """U+FFFD that stays is text, and at most the last three wait."""
    assert pieces("a\ufffd", "a\ufffdb", "a\ufffdb") == ["a", "\ufffdb", ""]
    assert pieces("\ufffd" * 5, "\ufffd" * 6) == ["\ufffd" * 2, "\ufffd" * 4]


def test_what_was_held_back_comes_out_at_the_end():
    """The last call gives everything, an unfinished character and the beginning of a stop string too."""
    assert pieces("a\ufffd", "a\ufffd") == ["a", "\ufffd"]
    assert pieces("the EN", "the EN", stop=("END",)) == ["the ", "EN"]


def test_text_ends_before_a_stop_string():
    """Nothing of the stop string is ever given out, also when it comes in pieces and the engine goes on."""
    assert pieces("one E", "one EN", "one END two", stop=("END",)) == ["one ", "", ""]


def test_the_first_of_several_matches_counts():
    """Of two stop strings in one piece the one that begins earlier ends the text."""
    text = StableText(("later", "first"))
    assert text.take("a first and later") == Piece("a ", stopped=True)


def test_a_false_beginning_is_given_back():
    """What looked like a stop string and is none comes out with what follows."""
    assert pieces("x E", "x EN", "x ENTER", "x ENTER", stop=("END",)) == ["x ", "", "ENTER", ""]


def test_an_engine_that_cuts_its_own_text_at_a_stop_string_is_no_contradiction():
    """Engines that know the stop string send a last text that is shorter than the one before."""
    text = StableText(("END",))
    assert text.take("one EN") == Piece("one ", stopped=False)
    assert text.take("one ", last=True) == Piece("", stopped=False)


def test_text_that_takes_back_what_was_given_is_a_contradiction():
    """The value tells where the two differ."""
    text = StableText()
    text.take("the mill")
    found = text.take("the pond")
    assert isinstance(found, Contradiction)
    assert str(found) == "took text back: after 4 equal characters it says 'pond', before it said 'mill'"
    assert "says ''" in str(text.take("the"))
