"""Coalesced twins: who follows whom.

A follower takes no slot; its answer is its leader's. When a leader ends without an answer, the first of its followers leads
the others.

>>> followers = Followers()
>>> for twin in ("b", "c", "d"):
...     followers.join(twin, "a")
>>> followers.promote("a")
('b', ('c', 'd'))
>>> followers.leader_of("d")
'b'
"""


class Followers:
    """A relation of depth one: a leader never follows."""

    def __init__(self) -> None:
        self._leader: dict[str, str] = {}
        self._followers: dict[str, dict[str, None]] = {}  # in the order they joined

    def join(self, task: str, leader: str) -> None:
        """`task` follows `leader` from now on."""
        self.leave(task)
        self._leader[task] = leader
        self._followers.setdefault(leader, {})[task] = None

    def leave(self, task: str) -> None:
        """`task` follows nobody any more."""
        leader = self._leader.pop(task, None)
        if leader is not None:
            mates = self._followers[leader]
            del mates[task]
            if not mates:
                del self._followers[leader]

    def leader_of(self, task: str) -> str | None:
        """Whom does it follow?"""
        return self._leader.get(task)

    def of(self, leader: str) -> tuple[str, ...]:
        """Who follows `leader`, in the order they joined."""
        return tuple(self._followers.get(leader, ()))

    def promote(self, leader: str) -> tuple[str, tuple[str, ...]] | None:
        """The first follower takes the place of `leader`; returns it and those who follow it now."""
        mates = self.of(leader)
        if not mates:
            return None
        first, *rest = mates
        self.leave(first)
        for task in rest:
            self.join(task, first)
        return first, tuple(rest)
