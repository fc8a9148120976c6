"""What topics are made with."""

import pytest

from services.pools.topics import settings_of


@pytest.mark.parametrize(("copies", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_an_acknowledgment_means_two_copies_where_there_are_three(copies: int, in_sync: str) -> None:
    """One broker may be lost without losing what was acknowledged, and one may be away without stopping the lanes."""
    assert settings_of("tasks.tiny.standard", copies)["min.insync.replicas"] == in_sync


def test_lanes_outlive_the_longest_deadline_and_usage_a_fortnight() -> None:
    """The longest deadline is a day; nothing is compacted."""
    lane, usage = settings_of("tasks.tiny.batch", 1), settings_of("usage", 1)
    assert int(lane["retention.ms"]) >= 48 * 3_600_000
    assert int(usage["retention.ms"]) >= 14 * 24 * 3_600_000
    assert lane["cleanup.policy"] == usage["cleanup.policy"] == "delete"
