"""Names of entries and of texts.

>>> entry_id(7, 12), parse_entry_id(b"7-12")
('7-12', (7, 12))
>>> gen_text((1_700_000_000_000 << 20) + 1), parse_gen("djjzl7cwyewx")
('djjzl7cwyewx', 1782579200000000001)
"""

import re
from functools import lru_cache
from typing import Final

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_GEN: Final = re.compile(r"[1-9a-z][0-9a-z]{0,12}", re.ASCII)
_LARGEST: Final = (1 << 63) - 1

FIRST_OF_A_DISPATCHER: Final = (
    1 << 52
)  # a dispatcher's attempts are epoch << 20 + n, its epochs at least Unix milliseconds


@lru_cache(maxsize=4096)  # a running text is named once for each of its frames
def gen_text(gen: int) -> str:
    """The name clients hold for the text that attempt `gen` began; empty for 0, no text yet."""
    digits = ""
    while gen:
        gen, digit = divmod(gen, 36)
        digits = _DIGITS[digit] + digits
    return digits


def parse_gen(text: str) -> int:
    """The attempt a client's `gen` names, 0 for an empty one. Raises ValueError for what `gen_text` never made."""
    if not text:
        return 0
    if not _GEN.fullmatch(text) or (gen := int(text, 36)) > _LARGEST:
        raise ValueError(f"{text[:20]!r} names no text")
    return gen


def attempt_of_a_try(tries: int, now: float) -> int:
    """The attempt of a router that logs a cache hit, from `Claim.tries` and Unix seconds.

    Below every attempt of a dispatcher. The time makes it another number than any before, also when Redis forgot the tries:
    a gen that came back would name two texts.
    """
    return (int(now * 1000) << 8) + min(tries, 255)


def entry_id(attempt: int, sequence: int) -> str:
    """The id of a stream entry: Redis orders by attempt, then by sequence."""
    return f"{attempt}-{sequence}"


def parse_entry_id(raw: bytes) -> tuple[int, int]:
    """(attempt, sequence) of a stream entry's id."""
    attempt, _, sequence = raw.partition(b"-")
    return int(attempt), int(sequence)
