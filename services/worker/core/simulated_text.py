"""What the simulator says: babble that anyone can compute who knows the prompt.

Byte i of the answer depends on the prompt and on i, on nothing else: not on the attempt, the worker, the seed or the time.
So a test knows every byte of every answer beforehand, across any number of attempts.

A prompt can ask for behaviour in a directive anywhere in it, `[[sim key=value ...]]`, of which the last counts:

    tokens=20             length of the whole answer, within max_tokens
    rate=10               tokens per second
    prefill=0.5           seconds before the first token
    stamp                 say the time instead: each token is the instant it was made, in nanoseconds of the monotonic
                          clock as 16 hexadecimal digits, to measure the way from here to a client on the same machine
    fault=continue@5      fail so after 5 tokens of the whole answer: retry, continue, away, fatal or hang (silence)

A fault strikes only a call that began before its place: whoever continues from there passes. One at 0 strikes every call
that begins the answer.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

_TEXT: Final = (
    "the stream mill turns and water falls on wheel stone grain flour river été naïve façade über straße "
    "año niño smörgås ночь мир река вода λόγος νερό 日本 水車 川 山 물 강 שלום नदी 🌊 🌾 ⚙️ slow fast deep bright "
    "calm old new long light wood iron rope sack loaf oven bread field barn gate door path bridge bank "
    "dam dust rain"
)
WORDS: Final = tuple(_TEXT.split())
assert len(WORDS) == 64

_MASK: Final = (1 << 64) - 1
_STEP: Final = 0x9E3779B97F4A7C15  # both from splitmix64
_MIX: Final = 0xBF58476D1CE4E5B9
_DIRECTIVE: Final = re.compile(r"\[\[sim ([^\[\]]*)\]\]")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a prompt asks the simulator for; None: as configured."""

    tokens: int | None = None
    rate: float | None = None
    prefill_s: float | None = None
    stamped: bool = False
    fault: str = ""
    fault_at: int = 0


def behaviour(prompt: str) -> Behaviour:
    """Read the prompt's directive. Raises ValueError when it has one that is not understood.

    >>> behaviour("Hello [[sim tokens=3 fault=continue@2]]")
    Behaviour(tokens=3, rate=None, prefill_s=None, stamped=False, fault='continue', fault_at=2)
    """
    found = _DIRECTIVE.findall(prompt)
    if not found:
        return Behaviour()
    wishes = dict(wish.partition("=")[::2] for wish in found[-1].split())
    fault, _, at = wishes.pop("fault", "").partition("@")
    tokens, rate, prefill = wishes.pop("tokens", None), wishes.pop("rate", None), wishes.pop("prefill", None)
    asked = Behaviour(
        tokens=int(tokens) if tokens is not None else None,
        rate=float(rate) if rate is not None else None,
        prefill_s=float(prefill) if prefill is not None else None,
        stamped=wishes.pop("stamp", None) is not None,
        fault=fault,
        fault_at=int(at or 0),
    )
    known = not wishes and fault in {"", "retry", "continue", "away", "fatal", "hang"}
    if not known or asked.tokens == 0 or asked.rate == 0:
        raise ValueError(f"the simulator does not understand {found[-1]!r}")
    return asked


def simulated_tokens(prompt: str, start: int = 0) -> Iterator[str]:
    """The tokens of the endless answer to a rendered prompt, from number `start` on: a word and a space each."""
    state = int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=8).digest()) + start * _STEP
    while True:
        mixed = state & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * _MIX) & _MASK
        yield WORDS[mixed >> 58] + " "
        state += _STEP


def simulated_text(prompt: str, tokens: int) -> str:
    """The first `tokens` tokens of the answer to a rendered prompt."""
    return "".join(islice(simulated_tokens(prompt), tokens))


def simulated_count(text: str) -> int:
    """Tokens of a text: its words, the last of which may be in the making.

    >>> simulated_count(""), simulated_count("the mill "), simulated_count("the mi")
    (0, 2, 2)
    """
    return text.count(" ") + (bool(text) and not text.endswith(" "))
