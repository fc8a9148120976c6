"""Reusable pieces of attention state: blocks of tokens, found again by what came before them.

A block's key is a hash over all tokens from the beginning of the text to the block's end, so equal keys mean equal
prefixes. The blocks that were not used for longest make room for new ones. A running sequence works on a copy of its
blocks in one piece (numpy has no attention over scattered pages); what the cache saves is computing them.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

KEY_BYTES = 16


class PagedKv:
    """An LRU cache of `capacity` blocks; each holds the keys and values of `block` tokens in every layer.

    `state` arrays have the shape (layers, 2, heads, tokens, head size).
    """

    def __init__(self, capacity: int, layers: int, heads: int, head_size: int, block: int) -> None:
        self.block = block
        self.capacity = capacity
        self.reused = 0  # blocks found, since the start
        self.missed = 0
        self._pool = np.empty((capacity, layers, 2, heads, block, head_size), np.float32)
        self._free = list(range(capacity))
        self._index: OrderedDict[bytes, int] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._index)

    def keys(self, tokens: Sequence[int]) -> list[bytes]:
        """One key for each whole block of a text."""
        key, keys = b"", []
        flat = np.asarray(tokens, np.int32)
        for start in range(0, len(flat) - self.block + 1, self.block):
            key = hashlib.blake2b(key + flat[start : start + self.block].tobytes(), digest_size=KEY_BYTES).digest()
            keys.append(key)
        return keys

    def load(self, tokens: Sequence[int], state: np.ndarray) -> tuple[int, int]:
        """Copy the longest known prefix into `state`. Returns (blocks reused, blocks missed).

        The last token is never reused: the model has to see one to say what comes next.
        """
        keys = self.keys(tokens[:-1])
        reused = 0
        for key in keys:
            page = self._index.get(key)
            if page is None:
                break
            self._index.move_to_end(key)
            state[:, :, :, reused * self.block : (reused + 1) * self.block] = self._pool[page]
            reused += 1
        self.reused += reused
        self.missed += len(keys) - reused
        return reused, len(keys) - reused

    def save(self, tokens: Sequence[int], state: np.ndarray) -> None:
        """Keep every whole block of a text whose state is computed for all of `tokens`."""
        for number, key in enumerate(self.keys(tokens)):
            if key not in self._index:
                page = self._free.pop() if self._free else self._index.popitem(last=False)[1]
                self._pool[page] = state[:, :, :, number * self.block : (number + 1) * self.block]
                self._index[key] = page
            self._index.move_to_end(key)
