"""Small cores: task ids, cursors of SSE, following, headers, estimates, requests of other transports."""

import doctest
import importlib

import pytest
from google.protobuf.duration_pb2 import Duration

from millrace.inference.v1.inference_pb2 import SubmitRequest
from millrace.limits.v1.limits_pb2 import Bucket, BucketState, CheckReply, CheckRequest
from millrace.task.v1.task_pb2 import CACHE_MARK_COALESCED, CacheMode, Outcome
from services.chassis.errors import Problem
from services.gateway.core import grpc_requests, openai
from services.gateway.core.following import Follow, Own, is_echo, source_of
from services.gateway.core.limit_headers import limit_headers
from services.gateway.core.sse import parse_cursor
from services.gateway.core.submission import Submission, body_hash
from services.gateway.core.task_id import is_task_id, task_id
from services.tasklog.core.entries import Delta, Header, Terminal

CORES = (
    "canonical",
    "compaction",
    "estimates",
    "following",
    "grpc_requests",
    "identity",
    "limit_headers",
    "messages",
    "openai",
    "sse",
    "submission",
    "task_id",
)


@pytest.mark.parametrize("name", CORES)
def test_the_worked_examples_hold(name: str) -> None:
    """Every example in a core's docstrings is true."""
    assert doctest.testmod(importlib.import_module(f"services.gateway.core.{name}")).failed == 0


def test_ids_keep_tenant_and_key_apart() -> None:
    """Tenant, key and secret all count, and no other split of the same letters gives the same id."""
    ids = {task_id(s, t, k) for s, t, k in [(b"s", "ab", "c"), (b"s", "a", "bc"), (b"s", "abc", ""), (b"r", "ab", "c")]}
    assert len(ids) == 4
    assert all(is_task_id(i) for i in ids)
    assert not is_task_id("A" * 26)
    assert not is_task_id("a" * 25)


@pytest.mark.parametrize("text", ["5", "g1:", "g1:x", "g1:-1", "!:5", ":", "g1:9999999999999999"])
def test_a_cursor_that_was_never_sent_is_refused(text: str) -> None:
    """Anything but <gen>:<offset> names the header and the rule."""
    problem = parse_cursor(text)
    assert isinstance(problem, Problem) or text == ":"


def test_whose_text_a_task_shows() -> None:
    """An empty log is its own; a following header points to the leader until there is text or a newer header."""
    follows = Header(5, "d", "n", "r", follows="twin")
    assert source_of([]) == Own()
    assert source_of([follows]) == Follow("twin")
    assert source_of([follows, Header(6, "w", "n", "r")]) == Own()
    assert source_of([follows, Header(6, "d", "n", "r", follows="other")]) == Follow("other")
    echoed = [follows, Header(6, "d", "n", "r"), Delta(6, 4, 0, 2, "hi")]
    assert source_of(echoed) == Own()
    assert not is_echo(echoed)
    assert is_echo([*echoed, Terminal(6, 4, 2, Outcome(cache=CACHE_MARK_COALESCED))])


def test_rate_limit_headers_say_what_is_left() -> None:
    """Policies and states in the same order, as structured fields."""
    request = CheckRequest(buckets=[Bucket(name="{a}:key:k:tokens", rate=10, period=Duration(seconds=1), burst=100)])
    reply = CheckReply(states=[BucketState(name="{a}:key:k:tokens", remaining=41.7, reset=Duration(nanos=5))])
    assert limit_headers(request, reply) == {
        "RateLimit-Policy": '"key-tokens";q=100;w=10',
        "RateLimit": '"key-tokens";r=41;t=1',
    }


def test_a_grpc_call_lends_its_deadline_to_its_task() -> None:
    """Only where the client gave none."""
    request = SubmitRequest(model="m", input="x", cache=CacheMode.CACHE_MODE_BYPASS)
    asked = grpc_requests.submission_of(request, 30.0)
    assert isinstance(asked, Submission)
    assert (asked.deadline_s, asked.cache_mode) == (30.0, CacheMode.CACHE_MODE_BYPASS)
    again = grpc_requests.submission_of(request, 29.0)
    assert isinstance(again, Submission)
    assert body_hash(again) == body_hash(asked)
    request.deadline.FromSeconds(5)
    asked = grpc_requests.submission_of(request, 30.0)
    assert isinstance(asked, Submission)
    assert asked.deadline_s == 5.0
    assert body_hash(asked) != body_hash(again)


def test_openai_names_become_ours() -> None:
    """`developer` is system, parts are joined, the newer name of max_tokens counts, cancel is the default policy."""
    asked = openai.submission_of(
        openai.ChatRequest(
            model="m",
            messages=[
                openai.ChatTurn("developer", "be brief"),
                openai.ChatTurn("user", [openai.TextPart("text", "a"), openai.TextPart("text", "b")]),
            ],
            max_tokens=1,
            max_completion_tokens=2,
            stop="x",
        ),
        "key",
    )
    assert isinstance(asked, Submission)
    assert [(m.role, m.content) for m in asked.messages] == [("system", "be brief"), ("user", "ab")]
    assert (asked.max_tokens, asked.stop, asked.on_disconnect, asked.key) == (2, ("x",), "cancel", "key")
