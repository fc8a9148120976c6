"""Task ids: the same tenant and key give the same id, on every gateway, without asking anyone."""

import hmac
import re
from typing import Final

_DIGITS: Final = "abcdefghijklmnopqrstuvwxyz234567"  # base32 of RFC 4648; base64.b32encode takes ten times as long
_PAIRS: Final = [high + low for high in _DIGITS for low in _DIGITS]
TASK_ID: Final = re.compile(r"[a-z2-7]{26}", re.ASCII)


def task_id(secret: bytes, tenant: str, key: str) -> str:
    """The first 128 bits of HMAC-SHA256(secret, length-prefixed tenant and key), as 26 lower-case base32 characters.

    The length prefixes keep ("ab", "c") apart from ("a", "bc").

    >>> task_id(b"secret", "acme", "key-1")
    'drvmqdtlt2cptclylikpeentcq'
    """
    digest = hmac.digest(secret, _prefixed(tenant) + _prefixed(key), "sha256")
    bits = int.from_bytes(digest[:16]) << 2  # 130 bits are 26 characters, or 13 pairs
    return "".join([_PAIRS[bits >> shift & 1023] for shift in range(120, -1, -10)])


def is_task_id(text: str) -> bool:
    """Could this be a task id? What is not one is never looked up."""
    return TASK_ID.fullmatch(text) is not None


def _prefixed(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(4, "big") + raw
