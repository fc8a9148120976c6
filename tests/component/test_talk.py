"""`millrace send`, `chat` and `watch` against a made-up gateway."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app
from tests.support.fake_gateway import KEY, FakePlatform, ServedGateway, answer_of

PROMPT = "a prompt"
TEXT = "".join(answer_of(PROMPT))


class Served(ServedGateway):
    """A gateway beside the commands, which block their thread."""

    def run(self, *arguments: str, key: str = KEY, said: str = "") -> Result:
        url = self.gateway.grpc_url if "grpc" in arguments else self.gateway.url
        return CliRunner().invoke(app, [*arguments, "--url", url, "--key", key], input=said)


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(FakePlatform(piece_s=0.001)) as served:
        yield served


@pytest.mark.parametrize("transport", ["ws", "sse", "grpc"])
def test_send_prints_the_answer_and_what_is_to_be_known_about_it(served: Served, transport: str) -> None:
    """The text alone on standard output; acknowledgment, first token and rate beside it."""
    result = served.run("send", PROMPT, "--transport", transport, "--max-tokens", "24", "--class", "critical")
    assert (result.exit_code, result.stdout) == (0, TEXT + "\n")
    assert "accepted in" in result.stderr
    assert "completed: 24 tokens, first after" in result.stderr
    assert "tokens/s" in result.stderr
    (task,) = served.platform.tasks.values()
    if transport != "grpc":
        assert (task.body["class"], task.body["max_tokens"]) == ("critical", 24)


def test_send_reads_a_prompt_from_standard_input(served: Served) -> None:
    """`-` stands for it."""
    assert served.run("send", "-", said=PROMPT).stdout == TEXT + "\n"


def test_send_as_json_prints_one_event_a_line(served: Served) -> None:
    """First the acknowledgment, last the end; the texts make the answer."""
    events = [json.loads(line) for line in served.run("send", PROMPT, "--json").stdout.splitlines()]
    assert (events[0]["t"], events[-1]["t"]) == ("ack", "done")
    assert "".join(event.get("text", "") for event in events) == TEXT


def test_a_refusal_is_one_line_and_exit_code_1(served: Served) -> None:
    """Code and message, no trace."""
    result = served.run("send", PROMPT, "--model", "none")
    assert result.exit_code == 1
    assert result.stderr.startswith("unknown_model: ")
    assert len(result.stderr.splitlines()) == 1
    assert served.run("send", PROMPT, key="mr_wrong").stderr.startswith("unauthenticated: ")


def test_a_task_that_fails_is_told_with_its_code(served: Served) -> None:
    """The text so far is printed, the exit code is 1."""
    result = served.run("send", "fail")
    assert result.exit_code == 1
    assert result.stdout.strip() == "".join(answer_of("fail")[:3]).strip()
    assert "failed (engine_failed: it did not work)" in result.stderr


def test_watch_reads_a_task_on_from_a_cursor(served: Served) -> None:
    """From the beginning by default, from a byte on when told."""
    events = [json.loads(line) for line in served.run("send", PROMPT, "--json").stdout.splitlines()]
    task, delta = events[0]["task"], next(event for event in events if event["t"] == "delta")
    assert served.run("watch", task).stdout == TEXT + "\n"
    rest = served.run("watch", task, "--gen", delta["gen"], "--offset", str(delta["offset"]))
    assert rest.stdout.encode() == TEXT.encode()[delta["offset"] :] + b"\n"
    assert served.run("watch", "nosuchtask").exit_code == 1


def test_chat_sends_the_turns_before(served: Served) -> None:
    """The second prompt carries the first turn and its answer; a turn that failed is left out."""
    result = served.run("chat", said=f"{PROMPT}\nfail\n\nand then?\n")
    assert result.exit_code == 0
    assert TEXT in result.stdout
    first, failed, third = (task.body["input"] for task in served.platform.tasks.values())
    assert [turn["content"] for turn in first] == [PROMPT]
    assert [turn["content"] for turn in failed] == [PROMPT, TEXT, "fail"]
    assert [turn["content"] for turn in third] == [PROMPT, TEXT, "and then?"]
    assert [turn["role"] for turn in third] == ["user", "assistant", "user"]


def test_without_an_address_the_stack_here_is_asked_for(tmp_path: Path) -> None:
    """When none runs, the message says how to start one."""
    result = CliRunner().invoke(app, ["send", PROMPT, "--data", str(tmp_path)])
    assert "millrace up" in str(result.exception)
