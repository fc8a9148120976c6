"""Which offsets of a partition are finished, in any order.

A commit names the lowest unfinished offset and carries, as its metadata string, a bitmap of the finished ones above it, so a
takeover skips finished tasks without asking anyone. The bitmap covers a window of 4,096 offsets: 512 bytes, 684 characters of
base64; the broker allows 4,096. What finishes beyond the window is remembered here and enters later commits as the window
moves. A record that stays unfinished while thousands behind it finish would be left behind by the window: it is `crowded`, and
the owner produces the record again at the tail.

>>> offsets = Offsets(100)
>>> for offset in (100, 101, 102, 103):
...     offsets.read(offset)
>>> offsets.finish(101), offsets.finish(103), offsets.finish(100)
(None, None, None)
>>> commit = offsets.commit()
>>> commit, decode(commit.metadata)
(Commit(offset=102, metadata='Ag=='), 2)
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Final

WINDOW: Final = 4096
CROWDED: Final = WINDOW * 3 // 4


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything below `offset` is finished, and what `metadata` says above it."""

    offset: int
    metadata: str


def encode(bits: int) -> str:
    """Bit i = the offset i above the committed one is finished. At most 684 characters."""
    bits &= (1 << WINDOW) - 1
    return base64.b64encode(bits.to_bytes((bits.bit_length() + 7) // 8, "little")).decode()


def decode(metadata: str) -> int:
    """The bits of a commit's metadata; 0 for what `encode` did not write: then more is read again than needed, nothing lost."""
    try:
        return int.from_bytes(base64.b64decode(metadata, validate=True), "little") & ((1 << WINDOW) - 1)
    except (binascii.Error, ValueError):
        return 0


class Offsets:
    """One partition. `base` is the lowest unfinished offset, `position` the next to be read."""

    def __init__(self, offset: int, metadata: str = "") -> None:
        self.base = self.position = offset
        self._bits = 0  # bit i: base + i is finished
        self._absorb(decode(metadata))
        self._note(Commit(offset, metadata))

    def read(self, offset: int) -> None:
        """The record at `offset` was read. Offsets that were passed over hold no record and count as finished."""
        if offset > self.position:
            self._absorb(((1 << (offset - self.position)) - 1) << (self.position - self.base))
        self.position = max(self.position, offset + 1)

    def finished(self, offset: int) -> bool:
        """Need the record at `offset` not be run any more?"""
        return offset < self.base or bool(self._bits >> (offset - self.base) & 1)

    def finish(self, offset: int) -> None:
        """The task of the record at `offset` ended for good, or the record was produced again elsewhere."""
        if offset >= self.base:
            self._absorb(1 << (offset - self.base))

    def merge(self, offset: int, metadata: str) -> None:
        """Take over what another owner committed: what it finished stays finished, and this owner never goes back."""
        bits = decode(metadata)
        if offset > self.base:
            self._bits >>= offset - self.base
            self.base = offset
            self._absorb(bits)
        else:
            self._absorb(bits >> (self.base - offset))
        self.position = max(self.position, self.base)
        self._note(Commit(offset, metadata))

    def commit(self, *, again: bool = False) -> Commit | None:
        """What to commit now; None if nothing changed since the last one, unless it is to be committed `again`."""
        commit = Commit(self.base, encode(self._bits))
        if commit == self._committed and not again:
            return None
        self._note(commit)
        return commit

    def committed(self, offset: int) -> bool:
        """Does the last commit say that `offset` is finished?"""
        above = offset - self._committed.offset
        return above < 0 or bool(self._committed_bits >> above & 1)

    @property
    def crowded(self) -> bool:
        """Is so much finished above the lowest unfinished offset that it should not hold up the commit any longer?"""
        return self._bits.bit_length() > CROWDED

    @property
    def lag(self) -> int:
        """Offsets that were read and are not below the committed one."""
        return self.position - self._committed.offset

    def _note(self, commit: Commit) -> None:
        self._committed = commit
        self._committed_bits = decode(commit.metadata)

    def _absorb(self, bits: int) -> None:
        self._bits |= bits
        whole = (~self._bits & (self._bits + 1)).bit_length() - 1  # finished without a gap, from base on
        if whole:
            self._bits >>= whole
            self.base += whole
            self.position = max(self.position, self.base)
