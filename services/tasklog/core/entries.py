"""What a token log consists of.

A log is one Redis stream. Entry ids are `<attempt>-<sequence>`: 0 for the header of an attempt, the end offset for a
delta, the largest possible sequence for the terminal. Redis refuses an id that is not above the last one, which makes
every append idempotent and a higher attempt's header a fence against all lower attempts.

`gen` names one text: it is the number of the attempt that began the text at offset 0. Offsets count bytes of UTF-8.
"""

from dataclasses import dataclass
from typing import TypeAlias

from millrace.task.v1.task_pb2 import Outcome, Route

TERMINAL_SEQUENCE = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Header:
    """An attempt began: all lower attempts are refused from here on.

    `nonce` tells a repeated header from another writer's; `run_id` is the Redis run under which this attempt's entries
    are written; `follows` is the task whose log holds the text of a coalesced task, else empty.
    """

    attempt: int
    writer: str
    nonce: str
    run_id: str
    follows: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """Text from offset `start` to offset `end` of the text `gen`, logged by `attempt`."""

    attempt: int
    gen: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Terminal:
    """The end of the text `gen` at offset `end`; the first terminal of a gen is its end, whatever follows."""

    attempt: int
    gen: int
    end: int
    outcome: Outcome


Entry: TypeAlias = Header | Delta | Terminal


@dataclass(frozen=True, slots=True)
class Written:
    """The entry is in the log. `routes` are the readers and `cancel` the wish that were read after it was written."""

    routes: tuple[Route, ...] = ()
    cancel: bool = False


@dataclass(frozen=True, slots=True)
class Fenced:
    """A higher attempt owns the log. Stop and show nothing."""


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no log although there was one: Redis forgot it or it expired. Never write it again blindly."""


AppendResult: TypeAlias = Written | Fenced | Lost


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nothing to continue: begin a text of your own, gen = your attempt, offset 0."""


@dataclass(frozen=True, slots=True)
class Continue:
    """An earlier attempt got this far under the present Redis run: go on with `text` as forced prefix."""

    gen: int
    text: str

    @property
    def offset(self) -> int:
        """Bytes of UTF-8 the text has."""
        return len(self.text.encode())


@dataclass(frozen=True, slots=True)
class Ended:
    """An earlier attempt logged the end: run the end routine again from it and stop."""

    terminal: Terminal
    text: str


Begin: TypeAlias = Fresh | Continue | Ended
