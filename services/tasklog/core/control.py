"""What is known of a task beside its text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim found.

    `mine`: the id is claimed for this very body. `tries`: how many claims there were, this one included; 1 = the first.
    `state`: `claimed`, `accepted` or `ended`. `pool`: where the first claim sent the task; a later try goes there too, since
    two pools would run it twice.
    """

    mine: bool
    tries: int
    state: str
    pool: str


@dataclass(frozen=True, slots=True)
class Control:
    """Claim and state of a task. Times in Unix seconds; the texts are empty where only the end is known."""

    tenant: str
    model: str
    pool: str
    state: str
    deadline: float
    submitted_at: float
