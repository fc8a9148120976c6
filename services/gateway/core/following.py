"""Where does the text of a task come from: its own log, or the log of the twin it joined?

A coalesced task takes no slot. Its header names the leader (`Header.follows`), whose log holds the text. When the leader
ends, its answer is echoed into the follower's log: same text, same gen, an end of its own. When the leader ends without an
answer, a follower is promoted and writes a text of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from millrace.task.v1.task_pb2 import CacheMark
from services.tasklog.core.entries import Entry, Header, Terminal


@dataclass(frozen=True, slots=True)
class Own:
    """The task's own log has, or will have, the text."""


@dataclass(frozen=True, slots=True)
class Follow:
    """The leader's log has the text."""

    leader: str


Source: TypeAlias = Own | Follow


def source_of(entries: Sequence[Entry]) -> Source:
    """Decide from the whole own log of a task: its newest attempt follows, or has an answer of its own.

    >>> source_of([Header(8, "dispatcher", "n", "r", follows="twin")])
    Follow(leader='twin')
    >>> source_of([Header(8, "dispatcher", "n", "r", follows="twin"), Header(9, "worker-1", "n", "r")])
    Own()
    """
    newest = max((e for e in entries if isinstance(e, Header)), key=lambda header: header.attempt, default=None)
    if newest is None or not newest.follows or not all(isinstance(e, Header) for e in entries):
        return Own()
    return Follow(newest.follows)


def is_echo(entries: Sequence[Entry]) -> bool:
    """Did the task end with the leader's answer?"""
    return any(isinstance(e, Terminal) and e.outcome.cache == CacheMark.CACHE_MARK_COALESCED for e in entries)
