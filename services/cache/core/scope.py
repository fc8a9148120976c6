"""What two requests must share before one may be answered with the other's text, and the key made of it.

A `Scope` cannot be made without all of its fields, and the key is made of all fields the class has: a field that is added
here is in every key, and no caller can leave one out.
"""

import hashlib
from dataclasses import astuple, dataclass
from typing import Final

# Part of every key. Change it when the canonical request or the stored answer changes its form.
SCHEMA_VERSION: Final = b"millrace.cache.1"
KEY_BYTES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Tenant, the model as clients name it, and the revision of its weights."""

    tenant: str
    model: str
    model_revision: str

    def __post_init__(self) -> None:
        if not (self.tenant and self.model):
            raise ValueError("a scope needs a tenant and a model")


def answer_key(scope: Scope, request: bytes) -> bytes:
    """Hash of the scope and the canonical request; 20 bytes, so an accident needs 10^24 answers.

    Each part goes in with its length: no two different scopes write the same bytes.

    >>> a = answer_key(Scope(tenant="ab", model="c", model_revision=""), b"?")
    >>> b = answer_key(Scope(tenant="a", model="bc", model_revision=""), b"?")
    >>> a == b
    False
    """
    digest = hashlib.blake2b(digest_size=KEY_BYTES, person=SCHEMA_VERSION)
    for part in (*(field.encode() for field in astuple(scope)), request):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
