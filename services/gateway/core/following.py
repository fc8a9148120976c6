"""Where does the text of a task come from: its own log, or the log of the twin it joined?

A coalesced task takes no slot. Its header names the leader (`Header.follows`), whose log holds the text; its own terminal is
its end. When the leader ends without an answer a follower is promoted and writes a text of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from services.tasklog.core.entries import Delta, Entry, Header, Terminal


@dataclass(frozen=True, slots=True)
class Own:
    """The task's own log has, or will have, the text."""


@dataclass(frozen=True, slots=True)
class Follow:
    """The leader's log has the text. `terminal` is the task's own end, once it is there."""

    leader: str
    terminal: Terminal | None = None


Source: TypeAlias = Own | Follow


def source_of(entries: Sequence[Entry]) -> Source:
    """Decide from the whole own log of a task.

    >>> source_of([Header(8, "dispatcher", "n", "r", follows="twin")])
    Follow(leader='twin', terminal=None)
    >>> source_of([Header(8, "dispatcher", "n", "r", follows="twin"), Header(9, "worker-1", "n", "r")])
    Own()
    """
    header = max((e for e in entries if isinstance(e, Header)), key=lambda h: h.attempt, default=None)
    terminal = next((e for e in entries if isinstance(e, Terminal)), None)
    joined = next((e.follows for e in entries if isinstance(e, Header) and e.follows), "")
    if not joined or header is None or any(isinstance(e, Delta) for e in entries):
        return Own()
    if terminal is not None and terminal.end:
        return Follow(joined, terminal)  # an end at an offset of a text that is not here: the leader's
    return Follow(header.follows, terminal) if header.follows else Own()
