"""The tiny language model without Triton: its modules stand alone, in a folder that only its server imports from."""

import sys
from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[2] / "deploy" / "triton" / "model_repository" / "tiny"

sys.path.insert(0, str(FOLDER / "1"))
try:
    from batching import Batcher, Finish, PromptTooLongError, QueueFullError, Sequence
    from lm import LanguageModel
    from paged_kv import PagedKv
    from sampling import Sampling, pick
    from vocabulary import Vocabulary
finally:
    sys.path.remove(str(FOLDER / "1"))

__all__ = [
    "FOLDER", "Batcher", "Finish", "LanguageModel", "PagedKv", "PromptTooLongError", "QueueFullError", "Sampling", "Sequence",
    "batcher", "pick", "run", "vocabulary",
]  # fmt: skip

HEADS = 6


@cache
def weights() -> dict[str, np.ndarray]:
    """The committed checkpoint."""
    with np.load(FOLDER / "1" / "weights.npz") as arrays:
        return dict(arrays)


@cache
def vocabulary() -> Vocabulary:
    """The committed tokenizer."""
    return Vocabulary(FOLDER / "tokenizer.json")


def batcher(*, slots: int = 4, blocks: int = 64, queue: int = 16, context: int = 1024) -> Batcher:
    """A fresh model, its cache empty."""
    model = LanguageModel(weights(), HEADS, slots, context)
    cache_ = PagedKv(blocks, model.layers, HEADS, model.head_size, 32)
    return Batcher(model, cache_, vocabulary(), end_token=vocabulary().token("<|end|>"), slots=slots, queue=queue)


def run(subject: Batcher, *sequences: Sequence) -> list[str]:
    """Add sequences and compute until all have ended; their texts."""
    for sequence in sequences:
        subject.add(sequence)
    while list(subject):
        subject.step()
    return [sequence.text for sequence in sequences]
