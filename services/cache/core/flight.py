"""Single flight: of identical requests that run at the same time one leads and the others join it.

A flight is held for a limited time and by a fence, a word that only its leader knows. Whoever stores an answer or ends the
flight shows the fence, so a leader that was replaced changes nothing.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flight:
    """Who leads: its class as a number, 1 = most urgent; its fence; its task."""

    rank: int
    fence: str
    task: str

    def encode(self) -> str:
        """As it stands in Redis: rank, fence, task; none of them contains a blank."""
        return f"{self.rank} {self.fence} {self.task}"

    @classmethod
    def decode(cls, text: str) -> "Flight":
        """Raises ValueError for what `encode` did not write."""
        rank, fence, task = text.split(" ")
        return cls(int(rank), fence, task)


@dataclass(frozen=True, slots=True)
class Join:
    """Follow this task."""

    leader: str


@dataclass(frozen=True, slots=True)
class Lead:
    """Nobody to follow: run, and store under this fence."""

    fence: str


def meet(flight: Flight | None, asker: Flight) -> Join | Lead:
    """What the asker does; with `Lead` the flight is from now on the asker's, unless it was before.

    Nobody joins a leader of a lower class, which would wait behind work of its own class: the asker takes the flight over,
    and the old leader's answer is its own and its followers' only. A leader that asks again (a retry of the same
    submission) leads on under its old fence.

    >>> meet(Flight(3, "f", "batch-task"), Flight(1, "g", "critical-task"))
    Lead(fence='g')
    >>> meet(Flight(1, "f", "critical-task"), Flight(3, "g", "batch-task"))
    Join(leader='critical-task')
    """
    if flight is None or flight.rank > asker.rank:
        return Lead(asker.fence)
    if flight.task == asker.task:
        return Lead(flight.fence)
    return Join(flight.task)


def may_store(flight: Flight | None, fence: str) -> bool:
    """May an answer be stored under this fence?

    Not while another task leads: its answer comes. A leader whose time ran out may, if nobody took its place. An empty fence
    belongs to a task that never led and may store like that too.
    """
    return flight is None or flight.fence == fence or not fence
