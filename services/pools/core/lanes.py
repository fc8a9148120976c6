"""A pool's lanes: one Kafka topic for each priority class.

>>> topic_of("tiny", PriorityClass.PRIORITY_CLASS_BATCH)
'tasks.tiny.batch'
"""

from collections.abc import Iterable
from typing import Final

from millrace.task.v1.task_pb2 import PriorityClass

# In the order of their turn.
CLASSES: Final = (
    PriorityClass.PRIORITY_CLASS_CRITICAL,
    PriorityClass.PRIORITY_CLASS_STANDARD,
    PriorityClass.PRIORITY_CLASS_BATCH,
    PriorityClass.PRIORITY_CLASS_BACKGROUND,
)
CLASS_NAMES: Final[dict[PriorityClass, str]] = {
    PriorityClass.PRIORITY_CLASS_CRITICAL: "critical",
    PriorityClass.PRIORITY_CLASS_STANDARD: "standard",
    PriorityClass.PRIORITY_CLASS_BATCH: "batch",
    PriorityClass.PRIORITY_CLASS_BACKGROUND: "background",
}
USAGE_TOPIC: Final = "usage"
DEAD_TOPIC: Final = "tasks.dead"

# Headers of a lane's records.
MOVED_HEADER: Final = "moved"  # produced again by the dispatcher, so that its old offset blocks no commit
TRACE_HEADER: Final = "traceparent"


def topic_of(pool: str, priority_class: PriorityClass) -> str:
    """The lane's topic. Raises KeyError for an unspecified class."""
    return f"tasks.{pool}.{CLASS_NAMES[priority_class]}"


def topics_of(pool: str) -> tuple[str, ...]:
    """All lanes of a pool, the most urgent first."""
    return tuple(topic_of(pool, priority_class) for priority_class in CLASSES)


def group_of(pool: str) -> str:
    """The consumer group that holds the pool's committed offsets. Never subscribed to, so it never rebalances."""
    return f"millrace.dispatch.{pool}"


def all_topics(pools: Iterable[str]) -> tuple[str, ...]:
    """Every topic that an installation with these pools needs."""
    return (*(topic for pool in pools for topic in topics_of(pool)), USAGE_TOPIC, DEAD_TOPIC)
