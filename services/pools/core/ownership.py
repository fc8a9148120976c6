"""Who owns a pool: the value of its lease in Redis.

The key lives as long as the lease. The highest epoch ever given is kept beside it, so that epochs never repeat.

>>> decode(encode(Owner("10.0.0.7:8105", 1764075723001)))
Owner(address='10.0.0.7:8105', epoch=1764075723001)
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Owner:
    """The dispatcher that owns a pool: where it is spoken to, and the epoch that outranks all earlier owners."""

    address: str
    epoch: int


def owner_key(pool: str) -> str:
    """The lease: exists only while somebody owns the pool."""
    return f"pool:{pool}:owner"


def epoch_key(pool: str) -> str:
    """The highest epoch given so far; never expires."""
    return f"pool:{pool}:epoch"


def encode(owner: Owner) -> bytes:
    """`<epoch> <address>`."""
    return f"{owner.epoch} {owner.address}".encode()


def decode(value: bytes) -> Owner:
    """Raises ValueError for anything `encode` did not write."""
    epoch, _, address = value.decode().partition(" ")
    return Owner(address, int(epoch))
