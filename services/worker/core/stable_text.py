"""Cumulative engine text to pieces that are never taken back.

An engine sends the whole text so far, and its end is not final: a character whose bytes are not all there shows as
U+FFFD, and what looks like the beginning of a stop string may become one. Both are held back until it is known.

    >>> text = StableText(stop=("END",))
    >>> text.take("caf\ufffd"), text.take("café E"), text.take("café EN"), text.take("café ENDED")
    (Piece(text='caf', stopped=False), Piece(text='é ', stopped=False), Piece(text='', stopped=False), Piece(text='', stopped=True))
"""

from dataclasses import dataclass

REPLACEMENT = "\ufffd"
UNFINISHED = 3  # a character of up to four bytes that lacks its last: some decoders show one U+FFFD for it, some three


@dataclass(frozen=True, slots=True)
class Piece:
    """New text, final. `stopped`: a stop string follows it, which is not part of the text."""

    text: str
    stopped: bool


@dataclass(frozen=True, slots=True)
class Contradiction:
    """The engine's text does not begin with what was given out before."""

    given: str
    got: str

    def __str__(self) -> str:
        """What the engine did."""
        same = next((i for i, (a, b) in enumerate(zip(self.given, self.got, strict=False)) if a != b), len(self.got))
        return (
            f"took text back: after {same} equal characters it says {self.got[same : same + 20]!r}, "
            f"before it said {self.given[same : same + 20]!r}"
        )


class StableText:
    """One answer. `stop`: strings before whose first occurrence the text ends."""

    __slots__ = ("_given", "_stop")

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._given = ""
        self._stop = tuple(filter(None, stop))

    def take(self, cumulative: str, *, last: bool = False) -> Piece | Contradiction:
        """What of the text so far is new and final; at the `last` call, all that was held back as well."""
        if not cumulative.startswith(self._given):
            return Contradiction(self._given, cumulative)
        sure = cumulative if last else _finished(cumulative)
        begin = len(self._given)
        # No occurrence begins in what was given: it would have been held back as the beginning of one.
        found = [at for stop in self._stop if (at := sure.find(stop, begin)) >= 0]
        end = min(found, default=len(sure))
        # What may become a stop string that begins earlier decides, once it is known, before one that is there already.
        held = end if last else min((_partial(sure, begin, stop) for stop in self._stop), default=end)
        stopped = bool(found) and held >= end
        end = max(min(held, end), begin)
        self._given = cumulative[:end]
        return Piece(cumulative[begin:end], stopped)


def _finished(text: str) -> str:
    """The text without what may be a character in the making."""
    end = len(text)
    while end > max(0, len(text) - UNFINISHED) and text[end - 1] == REPLACEMENT:
        end -= 1
    return text[:end]


def _partial(text: str, begin: int, stop: str) -> int:
    """Where the longest ending of `text` that begins `stop` begins, not before `begin`; else the text's length."""
    first = max(begin, len(text) - len(stop) + 1)
    return next((at for at in range(first, len(text)) if stop.startswith(text[at:])), len(text))
