"""The lease of a pool as it stands in Redis."""

import pytest

from services.pools.core.ownership import Owner, decode, encode, epoch_key, owner_key


def test_an_owner_survives_its_encoding():
    """Address and epoch, IPv6 included."""
    for owner in (Owner("10.0.0.7:8105", 1), Owner("[::1]:8105", 1 << 43)):
        assert decode(encode(owner)) == owner


def test_keys_name_the_pool():
    """The lease expires, the epoch beside it stays."""
    assert owner_key("tiny") == "pool:tiny:owner"
    assert epoch_key("tiny") == "pool:tiny:epoch"


def test_a_foreign_value_is_refused():
    """Not silently an owner."""
    with pytest.raises(ValueError):
        decode(b"somebody")
