"""Which token comes next.

The random number for a token is a function of the request's seed and the token's position alone. So the same seed gives
the same text whatever else runs, and a continuation from the middle draws what the uninterrupted text would have drawn.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """`temperature` 0 is greedy; `top_p` keeps the likeliest tokens that together have this probability."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


def pick(logits: np.ndarray, sampling: Sampling, position: int) -> int:
    """The token for `position`, from logits of shape (vocabulary,)."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    weights = np.exp((logits - logits.max()).astype(np.float64) / sampling.temperature)
    order = None
    if sampling.top_p < 1:
        order = np.argsort(-weights, kind="stable")
        weights = weights[order]
        mass = np.cumsum(weights)
        kept = 1 + int(np.searchsorted(mass, sampling.top_p * mass[-1]))
        weights = weights[:kept]
    mass = np.cumsum(weights)
    chance = np.random.Generator(np.random.Philox(key=sampling.seed, counter=position)).random()
    index = min(int(np.searchsorted(mass, chance * mass[-1], side="right")), len(mass) - 1)
    return index if order is None else int(order[index])
