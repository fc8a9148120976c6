"""The collector's policy, in a process of its own: it is global."""

import subprocess
import sys

PROGRAM = """
import gc
from services.chassis import collector
from services.gateway.websocket.gc_policy import GcPolicy

class Thing:
    pass

policy = GcPolicy(every=10)
collector.settle()
assert gc.get_threshold() == (50_000, 50, 50)
warm = gc.get_freeze_count()
assert warm > 1000
kept = []
for _ in range(10):
    kept.append(Thing())
    ring = Thing()
    ring.ring = ring
    del ring
    policy.accepted()
rings = [thing for thing in gc.get_objects() if isinstance(thing, Thing)]
assert rings == [], rings
frozen = gc.get_freeze_count() - warm
assert frozen < 60, frozen

import weakref
under_way = Thing()          # frozen in mid-handshake, garbage afterwards
gone = weakref.ref(under_way)
for _ in range(10):
    policy.accepted()
under_way.ring = under_way
del under_way
for _ in range(10):
    policy.accepted()
assert gone() is None
"""


def test_a_batch_of_connections_is_frozen_and_its_garbage_is_not() -> None:
    """After each batch what lives is out of the collector's sight; rings are collected, also those frozen while they lived."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
