"""What a reader of a task shows: its cursor over live frames and the log.

Live frames are hints. They may be lost, repeated, late, or come from an attempt that was fenced since; the log may have been
continued, written again as a whole, or begun anew. A cursor turns all of it into the bytes of one text, each once and in
order, then one end.

>>> reader = Cursor()
>>> reader.take_frame(1, 1, 0, 2, "Mi", None)
[Text(gen=1, offset=2, text='Mi')]
>>> reader.take_frame(1, 1, 5, 8, "ace", None)    # 'llr' is missing: read the log
<Gap.GAP>
>>> reader.take_log([Delta(1, 1, 0, 5, "Millr"), Delta(1, 1, 5, 8, "ace")])
[Text(gen=1, offset=5, text='llr'), Text(gen=1, offset=8, text='ace')]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from millrace.task.v1.task_pb2 import Outcome
from services.tasklog.core.entries import Delta, Entry, Header, Terminal


@dataclass(slots=True)  # not frozen: freezing triples what making one costs, and there is one for every frame
class Text:
    """Show `text`; it ends at `offset` of the text `gen`."""

    gen: int
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """Discard what was shown: the text was lost and begun again as `gen`, from offset 0."""

    gen: int


@dataclass(frozen=True, slots=True)
class End:
    """The end of the task, at `offset` of the text `gen`. Nothing comes after it."""

    gen: int
    offset: int
    outcome: Outcome


Event: TypeAlias = Text | Restarted | End


class Gap(Enum):
    """The one other answer to a frame."""

    GAP = "the frame does not connect to what was shown: read the log"

    def __repr__(self) -> str:
        return "<Gap.GAP>"


GAP: Final = Gap.GAP


class Cursor:
    """One reader's place: `offset` bytes of the text `gen` were shown, the last of them logged by `attempt`.

    A client that comes back gives `gen` and `offset`. An offset without a gen belongs to a text nobody can name, so its
    reader is told `Restarted` and gets the whole text.
    """

    __slots__ = ("attempt", "ended", "gen", "offset")

    def __init__(self, gen: int = 0, offset: int = 0) -> None:
        self.gen = gen
        self.offset = offset
        self.attempt = 0
        self.ended = False

    @property
    def after(self) -> tuple[int, int]:
        """The id above which the log holds everything this reader still needs: `TokenLog.read(task, after=cursor.after)`."""
        return self.attempt, self.offset

    def take_frame(  # noqa: PLR0917 - keywords would cost a tenth of a microsecond on every frame
        self, attempt: int, gen: int, start: int, end: int, text: str, outcome: Outcome | None
    ) -> list[Event] | Literal[Gap.GAP]:
        """What to show of a live frame: text from `start` to `end`, or with an outcome the end at `end`."""
        if start == self.offset and gen == self.gen and attempt >= self.attempt and outcome is None and not self.ended:
            self.attempt, self.offset = attempt, end  # the common case, once for every frame
            return [Text(gen, end, text)]
        if self.ended or gen < self.gen or attempt < self.attempt:
            return []
        if outcome is not None:
            start = end
        if gen > self.gen:
            if self.offset or start:
                return GAP
            self.gen = gen
        if start > self.offset:
            return GAP
        if outcome is None:
            return self._show(attempt, start, end, text)
        return self._end(end, outcome)

    def take_log(self, entries: Sequence[Entry]) -> list[Event]:
        """What to show of the log, or of its part above `after`. Takes the newest text in it, up to its first terminal."""
        newest = max((entry.gen for entry in entries if not isinstance(entry, Header)), default=0)
        if self.ended or not newest or newest < self.gen:
            return []
        events: list[Event] = []
        if newest > self.gen:
            if self.offset:
                events.append(Restarted(newest))
            self.gen, self.offset = newest, 0
        for entry in entries:
            match entry:
                case Delta(attempt, gen, start, end, text) if gen == newest and attempt >= self.attempt:
                    events += self._show(attempt, start, end, text)
                case Terminal(attempt, gen, end, outcome) if gen == newest and attempt >= self.attempt:
                    events += self._end(end, outcome)
                    break
                case _:  # a header, an older text, or an attempt below the last one shown
                    pass
        return events

    def _show(self, attempt: int, start: int, end: int, text: str) -> list[Event]:
        if not start <= self.offset < end:
            return []
        text = _beyond(text, self.offset - start)
        self.attempt, self.offset = attempt, end
        return [Text(self.gen, end, text)]

    def _end(self, end: int, outcome: Outcome) -> list[Event]:
        """The end is shown once all text before it was; a reader that claims more than there is gets the end as it is."""
        if end > self.offset:
            return []
        self.ended, self.offset = True, end
        return [End(self.gen, end, outcome)]


def assemble(entries: Sequence[Entry], gen: int) -> str:
    """The text `gen` as far as the entries have it."""
    text, offset = "", 0
    for entry in entries:
        if isinstance(entry, Delta) and entry.gen == gen and entry.start <= offset < entry.end:
            text += _beyond(entry.text, offset - entry.start)
            offset = entry.end
    return text


def _beyond(text: str, skip: int) -> str:
    """`text` without its first `skip` bytes of UTF-8. Never half a code point: the rest of a split one is left out."""
    if not skip or text.isascii():
        return text[skip:]
    return text.encode()[skip:].decode(errors="ignore")
