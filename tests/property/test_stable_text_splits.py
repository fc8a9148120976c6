"""Stable text against every way an engine can cut its text."""

from hypothesis import example, given
from hypothesis import strategies as st

from services.worker.core.chat_prompt import SpecialTokens
from services.worker.core.stable_text import Piece, StableText

TEXT = st.text(st.sampled_from("ab é日🙂\ufffdE"), max_size=24)
STOPS = st.lists(st.text(st.sampled_from("abé日E"), min_size=1, max_size=4), max_size=3).map(tuple)


def cumulative(data: bytes, cuts: list[int]) -> list[str]:
    """The texts of an engine that has so many bytes at each step, decoded as engines do."""
    ends = [*sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[:end].decode(errors="replace") for end in ends]


def expected(text: str, stop: tuple[str, ...]) -> str:
    return text[: min((at for word in stop if (at := text.find(word)) >= 0), default=len(text))]


def read(texts: list[str], stop: tuple[str, ...]) -> list[str]:
    stable, given_out = StableText(stop), []
    for number, text in enumerate(texts, 1):
        piece = stable.take(text, last=number == len(texts))
        assert isinstance(piece, Piece)
        given_out.append(piece.text)
        if piece.stopped:
            break
    return given_out


@example("aEEE", [2], ("E", "aEE"))
@given(TEXT, st.lists(st.integers(0, 200), max_size=12), STOPS)
def test_pieces_join_to_the_text_before_the_first_stop_string(text: str, cuts: list[int], stop: tuple[str, ...]):
    """However the bytes are split, the pieces are the text up to its first stop string, and never more."""
    assert "".join(read(cumulative(text.encode(), cuts), stop)) == expected(text, stop)


@given(TEXT)
def test_every_split_of_every_character_gives_the_same_text(text: str):
    """Byte by byte, nothing but whole characters comes out, and never one that is not in the text."""
    data = text.encode()
    given_out = read([data[:end].decode(errors="replace") for end in range(len(data) + 1)], ())
    assert "".join(given_out) == text


@given(TEXT, st.lists(st.integers(0, 200), max_size=12), STOPS)
def test_a_stop_string_never_lies_across_a_continuation(text: str, cuts: list[int], stop: tuple[str, ...]):
    """Whatever was given out when an attempt was lost, the rest read afresh ends where the whole would have ended."""
    stable, prefix = StableText(stop), ""
    for so_far in cumulative(text.encode(), cuts)[:-1]:
        piece = stable.take(so_far)
        assert isinstance(piece, Piece)
        prefix += piece.text
        if piece.stopped:
            return
        assert prefix + "".join(read([text[len(prefix) :]], stop)) == expected(text, stop)


MARKS = ("<|end|>", "<|user|>", "<|u")


@given(
    st.text(st.sampled_from("<|>enduser"), max_size=60)
    | st.lists(st.sampled_from((*MARKS, "<|e", "nd|>", "x")), max_size=20).map("".join)
)
def test_no_mark_survives_removal(text: str):
    """Whatever the text, no special token is left, and a second removal changes nothing."""
    remove = SpecialTokens(MARKS).remove
    cleaned = remove(text)
    assert not any(mark in cleaned for mark in MARKS)
    assert remove(cleaned) == cleaned
