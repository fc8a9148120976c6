"""Names of a pool's lanes."""

from millrace.task.v1.task_pb2 import PRIORITY_CLASS_BATCH
from services.pools.core.lanes import CLASS_NAMES, CLASSES, all_topics, group_of, topic_of, topics_of


def test_a_lane_is_named_by_pool_and_class():
    """`tasks.<pool>.<class>`."""
    assert topic_of("tiny", PRIORITY_CLASS_BATCH) == "tasks.tiny.batch"
    assert topics_of("tiny") == (
        "tasks.tiny.critical",
        "tasks.tiny.standard",
        "tasks.tiny.batch",
        "tasks.tiny.background",
    )
    assert group_of("tiny") == "millrace.dispatch.tiny"


def test_all_topics_are_the_lanes_of_all_pools_and_the_shared_ones():
    """What an installation must create."""
    topics = all_topics(["a", "b"])
    assert len(topics) == 2 * 4 + 2
    assert {"usage", "tasks.dead"} <= set(topics)


def test_every_class_has_a_name():
    """Except the unspecified one, which no lane has."""
    assert set(CLASSES) == set(CLASS_NAMES)
