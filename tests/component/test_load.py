"""The load of deploy/load against a made-up gateway."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from services.cli.stack.software import ROOT
from tests.support.fake_gateway import KEY, FakeGateway, FakePlatform, error

LOAD = ROOT / "deploy" / "load" / "load.py"


@pytest.fixture(scope="module")
def load() -> ModuleType:
    """The program, as a module."""
    spec = importlib.util.spec_from_file_location("millrace_load", LOAD)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["millrace_load"] = module
    spec.loader.exec_module(module)
    module.PAUSE_S = 0.01  # type: ignore[attr-defined]
    return module


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    platform = FakePlatform(piece_s=0.001)
    async with FakeGateway(platform) as running:
        yield running
    await platform.stop()


def settings(load: ModuleType, gateway: FakeGateway, **more: Any) -> Any:
    return load.Settings(**{"gateway": gateway.grpc_url, "key": KEY, "model": "sim", "users": 3, "seconds": 0.3} | more)


async def test_each_user_asks_one_prompt_after_the_other(load, gateway, capsys):
    """Every prompt is answered, none is asked twice, and the last line has the counts."""
    tally = await load.run(settings(load, gateway))
    assert tally.good
    assert tally.asked == tally.completed == len(gateway.platform.tasks) - 1 >= 3
    assert gateway.platform.submits == tally.asked + 1
    first, *_, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert "first_answer_s" in first
    assert (last["asked"], last["completed"], last["failed"], last["breaks"]) == (tally.asked, tally.completed, {}, 0)
    assert tally.tokens == 24 * tally.completed
    assert 0 < last["accepted_ms"]["p50"] <= last["first_token_ms"]["p99"]


async def test_an_answer_is_read_on_over_breaks(load, gateway):
    """From where the reader was: an accepted prompt is never asked again."""
    gateway.cuts, gateway.platform.piece_s = [100, 3, 2, 4], 0.02
    tally = await load.run(settings(load, gateway, users=1))
    assert tally.good
    assert tally.breaks == 3
    assert gateway.platform.submits == tally.asked + 1


async def test_an_answer_that_fails_makes_the_load_fail(load, gateway):
    """The end's code is counted."""
    tally = load.Tally()
    user = load.User(settings(load, gateway), tally)
    assert not await user.ask("fail", 8)
    await user.close()
    assert tally.failed == {"engine_failed": 1}
    assert not tally.good


async def test_a_refusal_is_counted_and_no_failure(load, gateway):
    """Nothing was accepted, so nothing is lost; the user asks again."""
    gateway.platform.refuse, gateway.platform.refusals = error("limited", "too many", retryable=True), 3
    tally = await load.run(settings(load, gateway))
    assert tally.good
    assert gateway.platform.refusals == 0


async def test_an_unknown_key_is_said(load, gateway):
    """Patience ends with what the gateway said."""
    with pytest.raises(TimeoutError, match="UNAUTHENTICATED: no such key"):
        await load.run(settings(load, gateway, key="mr_wrong", patience_s=0.05))


def test_settings_come_from_the_environment(load):
    """What is not set has its default."""
    read = load.Settings.read({"LOAD_USERS": "7", "LOAD_SECONDS": "1.5", "LOAD_MODEL": "tiny", "PATH": "/bin"})
    assert read == load.Settings(users=7, seconds=1.5, model="tiny")


def test_without_a_gateway_it_exits_with_1():
    """One line, no trace."""
    environment = {"LOAD_GATEWAY": "127.0.0.1:9", "LOAD_PATIENCE_S": "0.1"}
    done = subprocess.run(
        [sys.executable, LOAD], env=environment, capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 1
    assert done.stderr.startswith("no answer within 0 s")
    assert "Traceback" not in done.stderr
