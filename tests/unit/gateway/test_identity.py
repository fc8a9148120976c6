"""Who is calling, and what may they ask for?"""

import pytest

from services.chassis.errors import ErrorCode, Problem
from services.gateway.core.identity import Caller, Directory
from services.gateway.core.submission import Submission, SubmitFields, check
from tests.support.gateway_lab import KEY, OTHER_KEY, snapshot


@pytest.fixture
def directory() -> Directory:
    return Directory(snapshot())


def ask(model: str = "tiny", **fields: object) -> Submission:
    asked = check(SubmitFields(model=model, input="hi", **fields))
    assert isinstance(asked, Submission)
    return asked


def caller(directory: Directory, key: str = KEY) -> Caller:
    found = directory.caller_of(key)
    assert found is not None
    return found


def test_a_key_is_known_by_its_hash(directory: Directory) -> None:
    """The right key names tenant and key, a wrong one nobody."""
    assert (caller(directory).tenant, caller(directory).api_key) == ("local", "main")
    assert directory.caller_of("mr_wrong") is None
    assert directory.caller_named("local", "main") == caller(directory)
    assert directory.caller_named("local", "gone") is None


def test_max_tokens_comes_from_the_route(directory: Directory) -> None:
    """The route's default where the client named none, its maximum as a limit."""
    assert directory.admit(caller(directory), ask()) == 64
    assert directory.admit(caller(directory), ask(max_tokens=1000)) == 1000
    refused = directory.admit(caller(directory), ask(max_tokens=1001))
    assert isinstance(refused, Problem)
    assert (refused.code, refused.field) == (ErrorCode.INVALID_REQUEST, "max_tokens")


@pytest.mark.parametrize(
    ("key", "fields", "code"),
    [
        (KEY, {"model": "none"}, ErrorCode.UNKNOWN_MODEL),
        (OTHER_KEY, {"model": "sim"}, ErrorCode.FORBIDDEN),
        (OTHER_KEY, {"model": "none"}, ErrorCode.FORBIDDEN),
        (KEY, {"priority": "batch"}, ErrorCode.FORBIDDEN),
        (OTHER_KEY, {"priority": "critical"}, ErrorCode.FORBIDDEN),
    ],
)
def test_what_a_tenant_may_not_is_refused(
    directory: Directory, key: str, fields: dict[str, object], code: ErrorCode
) -> None:
    """A model that nobody has is unknown; one that others have, and a class beyond the tenant's, are forbidden."""
    refused = directory.admit(caller(directory, key), ask(**fields))
    assert isinstance(refused, Problem)
    assert refused.code is code


def test_a_new_revision_is_a_new_scope(directory: Directory) -> None:
    """The cache's scope names the revisions of all pools that may answer."""
    newer = snapshot()
    newer.pools[0].model_revision = "2"
    assert directory.revision_of("tiny") == "tiny=1"
    assert Directory(newer).revision_of("tiny") == "tiny=2"
