"""The collector's policy, in a process of its own: it is global."""

import subprocess
import sys

PROGRAM = """
import gc
from services.gateway.gc_policy import GcPolicy

class Thing:
    pass

policy = GcPolicy(every=10)
policy.warm()
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
assert 10 <= frozen < 40, frozen
"""


def test_a_batch_of_connections_is_frozen_and_its_garbage_is_not() -> None:
    """After each batch what lives is out of the collector's sight; rings that died were collected before."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
