"""What an attempt does: at its start, when the engine is silent, and how it settles.

An attempt fences, reads below its header, and then there are four ways to go on. The order of the cases is the protocol's:
an end found in the log wins over everything, a text held by this worker over what the log still has of it.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from services.tasklog.core.entries import Begin, Continue, Ended, Fenced, Fresh, Terminal


@dataclass(frozen=True, slots=True)
class Stop:
    """A higher attempt owns the log: drop the text, show nothing."""


@dataclass(frozen=True, slots=True)
class EndAgain:
    """An earlier attempt logged the end: run the end routine from it, once more."""

    terminal: Terminal
    text: str


@dataclass(frozen=True, slots=True)
class LogAgain:
    """The text is held here and Redis may have forgotten a part: log it whole, then go on where it was."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Ask the engine: for a text of one's own (`prefix` empty, gen = the attempt), or for the rest of another's."""

    gen: int
    prefix: str


StartPlan: TypeAlias = Stop | EndAgain | LogAgain | Generate


def plan_start(attempt: int, below: Begin | Fenced, *, holds_text: bool) -> StartPlan:
    """Decide from what lay below the header, and whether this worker may log a text it holds.

    >>> plan_start(9, Continue(gen=8, text="Once"), holds_text=False)
    Generate(gen=8, prefix='Once')
    """
    match below:
        case Fenced():
            return Stop()
        case Ended(terminal, text):
            return EndAgain(terminal, text)
        case _ if holds_text:
            return LogAgain()
        case Continue(gen, text):
            return Generate(gen, text)
        case Fresh():
            return Generate(attempt, "")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an engine may say nothing: before an attempt's first text (its queue and the prefill), and within it."""

    first_token_s: float
    stall_s: float


@dataclass(frozen=True, slots=True)
class Expired:
    """The deadline passed: the task ends with the text it has."""


@dataclass(frozen=True, slots=True)
class Stalled:
    """The engine went silent: the attempt failed, another goes on elsewhere."""

    message: str


def overdue(left_s: float, silent_s: float, *, began: bool, patience: Patience) -> Expired | Stalled | None:
    """Judge a running attempt: `left_s` until its deadline, `silent_s` since the engine last gave something."""
    if left_s <= 0:
        return Expired()
    if silent_s > (patience.stall_s if began else patience.first_token_s):
        what = "no further token" if began else "no first token"
        return Stalled(f"the engine stalled: {what} for {silent_s:.1f} s")
    return None


class Settled(Enum):
    """How an attempt settles: what the dispatcher hears about it."""

    LOGGED = auto()  # the end is in the log; its end routine follows, then `Finished`
    FENCED = auto()  # a higher attempt owns the log
    LOST = auto()  # Redis forgot: the text stays here until the next attempt is granted
    FAILED = auto()  # the engine failed; what it gave is logged, another attempt goes on elsewhere
    HANDED_BACK = auto()  # drained: as FAILED, but nobody's fault
