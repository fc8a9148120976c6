"""One batch of lookups: identical requests in it are one question to the store."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from services.cache.core.flight import Flight, Join, Lead, meet


@dataclass(frozen=True, slots=True)
class Ask:
    """Is there an answer to `key`, or may `asker` lead it for `lead_s` seconds?"""

    key: bytes
    asker: Flight
    lead_s: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored answer, as it was given, and when (Unix s)."""

    answer: bytes
    stored_at: float


Found: TypeAlias = Hit | Join | Lead


def questions(asks: Sequence[Ask]) -> list[Ask]:
    """One ask for each key: the most urgent one, the first of equals.

    >>> questions([Ask(b"k", Flight(3, "f", "a"), 9.0), Ask(b"k", Flight(1, "g", "b"), 9.0)])[0].asker.task
    'b'
    """
    first: dict[bytes, Ask] = {}
    for ask in asks:
        known = first.get(ask.key)
        if known is None or ask.asker.rank < known.asker.rank:
            first[ask.key] = ask
    return list(first.values())


def answers(asks: Sequence[Ask], asked: Sequence[Ask], found: Sequence[Found]) -> list[Found]:
    """What each ask gets, in order, from what the store said to the questions.

    Whoever asked for the others is at least as urgent as they are, so they may join whom it joined, and it if it leads.
    """
    known = {ask.key: (ask, answer) for ask, answer in zip(asked, found, strict=True)}
    replies: list[Found] = []
    for ask in asks:
        question, answer = known[ask.key]
        match answer:
            case Lead(fence) if ask is not question:
                replies.append(meet(Flight(question.asker.rank, fence, question.asker.task), ask.asker))
            case Join(leader) if leader == ask.asker.task:
                # The leader itself, submitted again beside others: it leads on. Its first try has the fence, this one
                # may only store.
                replies.append(Lead(""))
            case _:
                replies.append(answer)
    return replies
