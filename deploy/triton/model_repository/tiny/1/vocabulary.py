"""Tokens to bytes, for a byte-level BPE vocabulary.

Such a vocabulary spells each byte as one printable character; bytes that are none are moved up beyond 255. Undoing that
token by token makes cumulative text cheap, and a character whose bytes are not all there yet shows as U+FFFD at the end,
as it does in other engines.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer


class Vocabulary:
    """A tokenizer file: text to tokens, and each token's bytes. Special tokens have none."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        file = json.loads(path.read_text(encoding="utf-8"))
        special = {token["id"] for token in file["added_tokens"]}
        spelled = {character: byte for byte, character in enumerate(_characters())}
        self._bytes = {
            token: b"" if token in special else bytes(spelled[character] for character in text)
            for text, token in file["model"]["vocab"].items()
        }

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; special tokens are recognised."""
        return self._tokenizer.encode(text).ids

    def token(self, text: str) -> int:
        """The id of one token by its spelling."""
        return self._tokenizer.token_to_id(text)

    def bytes_of(self, token: int) -> bytes:
        """What the token adds to the text."""
        return self._bytes[token]


def _characters() -> list[str]:
    """The printable stand-in of each byte, as the GPT-2 vocabulary introduced them."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(256, 512))
    return [chr(byte if byte in printable else next(moved)) for byte in range(256)]
