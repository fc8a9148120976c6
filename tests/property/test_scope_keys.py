"""Different scopes or requests never share a key, and every field of a scope is in the key."""

import random
from dataclasses import fields, replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.scope import KEY_BYTES, Scope, answer_key

NAMES = [field.name for field in fields(Scope)]
PARTS = ["".join(letters) for length in range(4) for letters in product("ab|:\0/é", repeat=length)]
texts = st.text(min_size=1, max_size=12)
scopes = st.builds(Scope, tenant=texts, model=texts, model_revision=st.text(max_size=8))


def test_a_hundred_thousand_random_pairs_keep_apart():
    """Scopes over an alphabet that provokes mistakes: separators, empty parts, parts that slide into their neighbour."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)

    seen = {}
    for _ in range(100_000):
        scope = Scope(tenant=draw.choice(PARTS[1:]), model=draw.choice(PARTS[1:]), model_revision=draw.choice(PARTS))
        whole = (scope, draw.choice(PARTS).encode())
        assert seen.setdefault(answer_key(*whole), whole) == whole
    assert len(seen) > 90_000


@given(scopes, st.binary(max_size=64), st.sampled_from(NAMES), texts)
def test_every_field_is_in_the_key(scope, request, name, other):
    """Change any one field and it is another key."""
    changed = replace(scope, **{name: other})
    assert (answer_key(scope, request) == answer_key(changed, request)) == (scope == changed)


@given(scopes, st.binary(max_size=64), st.binary(max_size=64))
def test_the_request_is_in_the_key(scope, one, other):
    """And nothing else is: equal things have equal keys."""
    assert (answer_key(scope, one) == answer_key(scope, other)) == (one == other)
    assert len(answer_key(scope, one)) == KEY_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_a_scope_cannot_be_made_without_a_field(name):
    """There is no default to forget behind."""
    parts = {"tenant": "t", "model": "m", "model_revision": "r"}
    parts.pop(name)
    with pytest.raises(TypeError):
        Scope(**parts)


def test_a_scope_without_a_tenant_or_model_is_refused():
    """An empty name would be everybody's."""
    for parts in ({"tenant": ""}, {"model": ""}):
        with pytest.raises(ValueError):
            Scope(**({"tenant": "t", "model": "m", "model_revision": ""} | parts))
