"""Processes of a stack."""

import os
from pathlib import Path

from services.cli.stack import processes
from tests.support.waiting import eventually


async def test_who_gives_way_gives_way_to_other_sessions_too(tmp_path):
    """`nice` counts inside of a session only, where the kernel weighs sessions as wholes."""
    process = await processes.spawn(["sleep", "60"], tmp_path, os.environ, tmp_path / "log", nice=7)
    session = Path(f"/proc/{process.pid}/autogroup")
    try:
        await eventually(lambda: os.getpriority(os.PRIO_PROCESS, process.pid) == 7)
        if session.exists():  # a kernel without autogroup has no such file
            assert session.read_text().rstrip().endswith("nice 7")
    finally:
        process.kill()
        await process.wait()
