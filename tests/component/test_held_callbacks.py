"""The detector of these tests itself: what it catches, and what it lets pass."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.stack.software import ROOT

TESTS = '''
import asyncio, gc, time
import pytest

def work(seconds):
    """A busy callback, by CPU time."""
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass

def collect(seconds):
    """A collector that is slow."""
    def slow(phase, info):
        if phase == "start":
            work(seconds)
    gc.callbacks.append(slow)
    gc.collect()
    gc.callbacks.remove(slow)

async def holding(hold, seconds):
    hold(seconds)

@pytest.mark.parametrize(("hold", "seconds"), [({hold}, {seconds})])
async def test_in_a_task(hold, seconds):
    for _ in range(3):
        await asyncio.create_task(holding(hold, seconds), name="the holder")

@pytest.mark.parametrize(("hold", "seconds"), [({hold}, {seconds})])
async def test_in_a_callback(hold, seconds):
    asyncio.get_running_loop().call_soon(hold, seconds)
    await asyncio.sleep(0.01)
'''


@pytest.fixture
def outcome(tmp_path: Path):
    """What pytest says of two tests in which a task and a callback do this."""

    def run(hold: str, seconds: float) -> str:
        (tmp_path / "test_it.py").write_text(TESTS.format(hold=hold, seconds=seconds))
        options = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "tests.support.held_loops", *options, "-q", "test_it.py"],
            cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    return run


def test_a_callback_that_holds_its_loop_fails_its_test_and_is_named(outcome):
    """Work of 150 ms: pytest fails, and names the task or the callback, its file and line, and for how long."""
    said = outcome("work", 0.15)
    assert "2 failed" in said, said
    assert "name='the holder' coro=<holding() done, defined at " in said, said
    assert "<Handle work(0.15) at " in said, said
    assert "test_it.py:" in said, said
    assert said.count(" ms of CPU") == 3 + 1


def test_a_call_that_blocks_holds_the_loop_too(outcome):
    """A sleep of 150 ms that is not the loop's own."""
    said = outcome("time.sleep", 0.15)
    assert "2 failed" in said, said
    assert said.count(" ms of waiting") == 3 + 1


@pytest.mark.parametrize(("hold", "seconds"), [("work", 0.02), ("collect", 0.15)])
def test_shorter_callbacks_and_the_collector_are_let_pass(outcome, hold: str, seconds: float):
    """Several of 20 ms, one after the other; a collection of garbage, whose length other tests decide."""
    said = outcome(hold, seconds)
    assert "2 passed" in said, said
