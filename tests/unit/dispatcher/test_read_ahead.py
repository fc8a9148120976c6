"""How much of the lanes may be in memory."""

from millrace.task.v1.task_pb2 import PRIORITY_CLASS_BATCH, PRIORITY_CLASS_CRITICAL
from services.dispatcher.core.read_ahead import OVERHEAD, ReadAhead

PARTITIONS = [(PRIORITY_CLASS_CRITICAL, 0), (PRIORITY_CLASS_BATCH, 0), (PRIORITY_CLASS_BATCH, 1)]


def test_a_flood_in_one_lane_pauses_that_lane_only():
    """And it goes on once a fifth of its share is free."""
    ahead = ReadAhead(4 * 10 * (1000 + OVERHEAD))
    for _ in range(10):
        ahead.entered(PRIORITY_CLASS_BATCH, 1000)
    assert ahead.changes(PARTITIONS) == ([], [])
    ahead.entered(PRIORITY_CLASS_BATCH, 1000)
    assert ahead.changes(PARTITIONS) == (PARTITIONS[1:], [])
    assert ahead.changes(PARTITIONS) == ([], [])
    for _ in range(4):
        ahead.left(PRIORITY_CLASS_BATCH, 1000)
    assert ahead.changes(PARTITIONS) == ([], PARTITIONS[1:])
