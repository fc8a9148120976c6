"""The tiny language model in numpy: a decoder of 4 layers with rotary positions and tied embeddings.

One `LanguageModel` holds the weights and the attention state of `slots` sequences. `prefill` reads a piece of one
sequence's prompt, `decode` takes one step of many sequences at once.

Decoding multiplies a stack of vectors, not a matrix of a few rows: BLAS packs the weights anew for each matrix product,
which below 16 rows costs more than it saves (all products of a step of 8: 1.8 against 3.0 ms; of 2: 0.5 against 2.7). It
also makes each row's result independent of its neighbours, so a text is the same, bit for bit, alone or in company.
"""

from collections.abc import Sequence

import numpy as np

EPSILON = 1.1920929e-07  # of the normalisation, as trained
ROTARY_BASE = 10000.0


class LanguageModel:
    """Weights, and the state of `slots` sequences of at most `context` tokens each.

    `weights` are the arrays of a trained checkpoint by name; `heads` is the one thing their shapes do not tell.
    """

    def __init__(self, weights: "dict[str, np.ndarray]", heads: int, slots: int, context: int) -> None:
        w = {name: array.astype(np.float32) for name, array in weights.items()}
        self.embedding = w["e.weight"]
        self.vocabulary, self.width = self.embedding.shape
        self.layers = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("b."))
        self.heads = heads
        self.head_size = self.width // heads
        self.context = context
        self._blocks = [self._block(w, layer) for layer in range(self.layers)]
        self._head = _transposed(self.embedding * w["n.weight"])
        angle = np.arange(context)[:, None] / ROTARY_BASE ** (np.arange(self.head_size // 2) / (self.head_size // 2))
        self._cos, self._sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        # Pages nobody wrote to cost no memory, so short texts in few slots keep this small.
        self.state = np.empty((slots, self.layers, 2, heads, context, self.head_size), np.float32)

    def _block(self, w: "dict[str, np.ndarray]", layer: int) -> "tuple[np.ndarray, ...]":
        """A layer's four matrices, with the weights of the normalisations before them and the scale of the scores."""
        name = f"b.{layer}."
        qkv = w[name + "qkv.weight"] * w[name + "n1.weight"]
        qkv[: self.width] *= self.head_size**-0.5
        up = w[name + "u.weight"] * w[name + "n2.weight"]
        return _transposed(qkv), _transposed(w[name + "o.weight"]), _transposed(up), _transposed(w[name + "d.weight"])

    def prefill(self, slot: int, tokens: Sequence[int], start: int) -> np.ndarray:
        """Read `tokens`, which stand at `start` and after it; returns the logits after the last, shape (vocabulary,)."""
        count, end = len(tokens), start + len(tokens)
        cos, sin = self._cos[start:end, None], self._sin[start:end, None]
        future = np.triu(np.full((count, count), -np.inf, np.float32), 1)
        x = self.embedding[np.asarray(tokens)]
        for (qkv, out, up, down), state in zip(self._blocks, self.state[slot], strict=True):
            q, k, v = (_normal(x) @ qkv).reshape(count, 3, self.heads, self.head_size).swapaxes(0, 1)
            keys, values = state[:, :, :end]
            keys[:, start:] = _rotated(k, cos, sin).swapaxes(0, 1)
            values[:, start:] = v.swapaxes(0, 1)
            scores = _rotated(q, cos, sin).swapaxes(0, 1) @ keys.swapaxes(1, 2)
            scores[:, :, start:] += future
            mixed = _softmax(scores) @ values
            x = x + mixed.swapaxes(0, 1).reshape(count, self.width) @ out
            x = x + _gelu(_normal(x) @ up) @ down
        return _normal(x[-1]) @ self._head

    def decode(self, slots: Sequence[int], tokens: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        """One step of several sequences: `tokens[i]` stands at `positions[i]` of slot `slots[i]`.

        Returns the logits, shape (sequences, vocabulary).
        """
        count = len(slots)
        where, at = np.asarray(slots), np.asarray(positions)
        cos, sin = self._cos[at][:, None], self._sin[at][:, None]
        x = self.embedding[np.asarray(tokens)]
        mixed = np.empty((count, self.heads, 1, self.head_size), np.float32)
        for layer, (qkv, out, up, down) in enumerate(self._blocks):
            q, k, v = _rows(_normal(x), qkv).reshape(count, 3, self.heads, self.head_size).swapaxes(0, 1)
            self.state[where, layer, 0, :, at] = _rotated(k, cos, sin)
            self.state[where, layer, 1, :, at] = v
            q = _rotated(q, cos, sin)[:, :, None]
            for i in range(count):  # each has its own length
                keys, values = self.state[slots[i], layer, :, :, : positions[i] + 1]
                np.matmul(_softmax(q[i] @ keys.swapaxes(1, 2)), values, out=mixed[i])
            x = x + _rows(mixed.reshape(count, self.width), out)
            x = x + _rows(_gelu(_rows(_normal(x), up)), down)
        return _rows(_normal(x), self._head)


def _transposed(weight: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(weight.T)


def _rows(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`x @ weight`, row by row inside one call."""
    return (x[:, None] @ weight)[:, 0]


def _normal(x: np.ndarray) -> np.ndarray:
    mean = np.add.reduce(x * x, axis=-1, keepdims=True) * np.float32(1 / x.shape[-1])
    return x / np.sqrt(mean + np.float32(EPSILON))


def _rotated(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    turned = np.empty(x.shape, np.float32)
    np.subtract(a * cos, b * sin, out=turned[..., :half])
    np.add(b * cos, a * sin, out=turned[..., half:])
    return turned


def _softmax(scores: np.ndarray) -> np.ndarray:
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, axis=-1, keepdims=True)
    return scores


def _gelu(x: np.ndarray) -> np.ndarray:
    inner = np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * (x * x * x)))
    return np.float32(0.5) * x * (1 + inner)
