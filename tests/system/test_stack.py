"""The stack on one machine: it starts once, keeps its data, repairs what dies, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from services.cli.stack.core.report import State
from services.cli.stack.handle import Stack, StackError
from services.cli.stack.processes import is_same
from services.cli.stack.software import ROOT
from tests.support.waiting import wait_until

MILLRACE = ROOT / ".venv" / "bin" / "millrace"
SMALL = ["publisher"]  # and Redis, after which it starts


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Stack]:
    """A stack of a few processes, for tests that break the supervisor itself."""
    with Stack(tmp_path / "data", ports="free", only=SMALL, tied=True) as running:
        running.wait_ready(30)
        yield running


def millrace(data: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MILLRACE, arguments[0], "--data", data, *arguments[1:]],
        capture_output=True, text=True, check=False, timeout=50, env=os.environ | environment,
    )  # fmt: skip


def pids(stack: Stack) -> list[int]:
    return [stack.status.pid, *(c.pid for c in stack.status.components if c.pid)]


def redis_of(stack: Stack) -> "redis.Redis":
    return redis.Redis(port=stack.status.named("redis")[0].ports["port"])


def kill_supervisor(stack: Stack) -> None:
    os.kill(stack.status.pid, signal.SIGKILL)
    wait_until(lambda: not stack.home.is_held())


def test_the_whole_stack_becomes_ready(stack):
    """Every process is ready, and the page's URL answers and carries the key in its fragment only."""
    status = stack.status
    assert status.state is State.READY
    assert status.page == f"http://{stack.gateways[0].http}/#key={stack.key}"
    assert httpx.get(status.page.partition("#")[0]).status_code == 200


def test_a_key_opens_the_whole_stack(stack):
    """The local key is known to each gateway as soon as the stack is ready, another is not."""
    for gateway in stack.gateways:
        url = f"http://{gateway.http}/v1/models"
        assert httpx.get(url, headers={"Authorization": f"Bearer {stack.key}"}).status_code == 200
        assert httpx.get(url, headers={"Authorization": f"Bearer mr_{'a' * 32}"}).status_code == 401


def test_a_second_start_finds_the_running_one(small):
    """`millrace up` beside a running stack says so, succeeds and starts nothing."""
    before = pids(small)
    assert not Stack(small.home.folder).start()
    said = millrace(small.home.folder, "up")
    assert said.returncode == 0, said.stderr
    assert f"runs already (supervisor {small.status.pid})" in said.stdout
    assert pids(small) == before


def test_data_and_secrets_outlive_a_restart(small):
    """What was in Redis before a stop is there after the next start, and the key is the same."""
    redis_of(small).set("kept", "yes")
    key = small.key
    small.stop()
    small.start()
    small.wait_ready(30)
    assert redis_of(small).get("kept") == b"yes"
    assert small.key == key


def test_nothing_is_left_behind_after_a_stop(small):
    """All processes are gone, their children too, and the status says stopped."""
    everything = [psutil.Process(pid) for pid in pids(small)]
    everything += [child for process in everything for child in process.children(recursive=True)]
    assert small.stop()
    assert not [p for p in everything if p.is_running()]
    assert small.home.read_status().state is State.STOPPED
    with pytest.raises(StackError, match=r"no stack runs in .*Start one with: millrace up"):
        _ = small.status


def test_a_killed_component_is_restarted_on_its_port(small):
    """It comes back by itself, with the same ports, and its restart is counted."""
    before = small.status.named("redis")[0]
    small.kill("redis")
    after = small.wait_ready(30).named("redis")[0]
    assert after.pid != before.pid
    assert (after.restarts, after.ports) == (1, before.ports)


def test_a_paused_component_is_said_to_be_paused(small):
    """A pause is no death: the process stays, the status names it, and it goes on as if nothing had been."""
    before = small.pid("redis")
    small.pause("redis")
    wait_until(lambda: small.status.named("redis")[0].state is State.PAUSED)
    small.resume("redis")
    assert small.wait_ready(30).named("redis")[0].pid == before


def test_children_die_with_a_supervisor_that_is_killed(small):
    """kill -9 of the supervisor ends what it ran, and the next start finds a clean folder."""
    orphans = {c.pid: c.started_ticks for c in small.status.components if c.pid}
    kill_supervisor(small)
    wait_until(lambda: not any(is_same(pid, ticks) for pid, ticks in orphans.items()))
    assert small.start()
    small.wait_ready(30)


def test_a_start_ends_what_a_killed_supervisor_could_not(small):
    """A paused child does not hear that its supervisor died; the next start ends it before it starts its own."""
    deaf = small.status.named("redis")[0]
    small.pause("redis")
    kill_supervisor(small)
    small.start(20)
    assert not is_same(deaf.pid, deaf.started_ticks)
    small.wait_ready(30)


def test_a_taken_port_moves_to_the_next_free_one(tmp_path):
    """A stack on the usual ports passes over one that somebody else listens on."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 16379))
            other.listen()
        except OSError:
            pass  # somebody else listens there already: as good
        with Stack(tmp_path, only=["redis"], tied=True) as stack:
            assert stack.wait_ready(30).named("redis")[0].ports["port"] > 16379


def test_what_is_missing_is_named_with_the_command_that_brings_it(tmp_path):
    """Without Kafka and redis-server nothing starts, and each is named once with the way to get it."""
    said = millrace(tmp_path, "up", "--only", "kafka", PATH="/nonexistent", XDG_CACHE_HOME=str(tmp_path / "empty"))
    assert said.returncode == 1
    assert "Kafka is not in" in said.stderr
    assert "Run: make setup" in said.stderr
    assert not (tmp_path / "logs" / "kafka.log").exists()


def test_status_for_programs_says_where_everything_is(small):
    """`status --json` has state, pids, ports and the key; without a stack the command fails with a sentence."""
    said = millrace(small.home.folder, "status", "--json")
    assert said.returncode == 0, said.stderr
    status = json.loads(said.stdout)
    assert (status["state"], status["key"]) == ("ready", small.key)
    assert {c["name"]: bool(c["pid"]) for c in status["components"]} == {"redis": True, "publisher": True}
    nothing = millrace(small.home.folder.parent / "nothing", "status", "--json")
    assert nothing.returncode == 1
    assert "no stack runs in" in nothing.stderr
    assert not nothing.stdout


def test_a_fault_on_an_unknown_component_names_those_there_are(small):
    """`millrace fault nix kill` fails and lists what could be meant."""
    said = millrace(small.home.folder, "fault", "nix", "kill")
    assert said.returncode == 1
    assert "no component 'nix'; there are: redis, publisher" in said.stderr


def test_up_in_the_foreground_stops_all_on_a_signal(tmp_path):
    """Ctrl-C ends `millrace up` and everything it started; it had said when it was ready."""
    process = subprocess.Popen(
        [MILLRACE, "up", "--data", tmp_path, "--only", "redis", "--free-ports"], stdout=subprocess.PIPE, text=True
    )
    stack = Stack(tmp_path)
    wait_until(lambda: stack.home.is_held() and stack.home.read_status() and stack.status.state is State.READY)
    server = psutil.Process(stack.pid("redis"))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert "redis: ready" in output
    assert process.returncode == 0
    assert not server.is_running()
