"""The detector of these tests itself, on a process that starts and stops as every service does."""

import os
import subprocess
import sys
from pathlib import Path

from services.cli.stack.software import ROOT
from tests.support.stalls import stalls_in

SERVICE = '''
import asyncio, time
from services.chassis.lifecycle import run
from services.chassis.settings import ServiceSettings

def work(seconds):
    """By CPU time."""
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass

async def start(service):
    work(0.3)
    await asyncio.sleep(0.1)
    service.spawn("the holder", serve(service))

async def serve(service):
    for _ in range(10):  # the kernel's CPU timer misses some on a crowded machine
        await asyncio.sleep(0.3)
        hold()
    await asyncio.sleep(0.3)
    service.stop()

def hold():
    work(0.2)

run("held", ServiceSettings, start)
'''


def test_a_service_whose_loop_is_held_is_found_with_its_holder(tmp_path: Path) -> None:
    """200 ms of work while it serves are found in its log, by name; what its start needs is not."""
    program = tmp_path / "held.py"
    program.write_text(SERVICE)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MILLRACE_HELD__ADMIN_PORT": "0"}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True)
    stalls = stalls_in(done.stderr)
    assert len(stalls) >= 5, done.stderr
    assert any(f" < hold ({program}:" in stall and f" < serve ({program}:" in stall for stall in stalls), done.stderr
    assert not any(f" < start ({program}:" in stall for stall in stalls), done.stderr
