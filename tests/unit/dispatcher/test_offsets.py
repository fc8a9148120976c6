"""Finished offsets of a partition, in any order."""

from services.dispatcher.core.offsets import CROWDED, WINDOW, Commit, Offsets, decode, encode


def read(offsets, until):
    for offset in range(offsets.position, until):
        offsets.read(offset)


def test_the_lowest_unfinished_offset_is_committed():
    """What is finished above it goes into the metadata."""
    offsets = Offsets(10)
    read(offsets, 15)
    offsets.finish(12)
    offsets.finish(10)
    commit = offsets.commit()
    assert commit.offset == 11
    assert decode(commit.metadata) == 0b10
    offsets.finish(11)
    assert offsets.commit() == Commit(13, "")


def test_nothing_new_is_nothing_to_commit():
    """Except for the hourly repetition."""
    offsets = Offsets(10)
    assert offsets.commit() is None
    assert offsets.commit(again=True) == Commit(10, "")


def test_a_takeover_skips_what_the_metadata_names():
    """The next owner knows the finished offsets without asking anyone."""
    offsets = Offsets(11, encode(0b1010))
    assert [o for o in range(9, 16) if offsets.finished(o)] == [9, 10, 12, 14]


def test_the_metadata_of_a_full_window_has_684_characters():
    """The broker allows 4,096."""
    assert len(encode((1 << WINDOW) - 1)) == 684
    assert len(encode((1 << (2 * WINDOW)) - 1)) == 684


def test_foreign_metadata_is_nothing_finished():
    """More is read again than needed, nothing is lost."""
    assert decode("not base64!") == 0
    assert decode("") == 0
    assert not Offsets(5, "@@@").finished(6)


def test_offsets_without_a_record_do_not_hold_up_the_commit():
    """Kafka leaves gaps."""
    offsets = Offsets(0)
    offsets.read(0)
    offsets.read(5)
    offsets.finish(0)
    assert offsets.commit() == Commit(5, "")


def test_a_new_owner_never_goes_back():
    """What another owner committed since is taken over."""
    offsets = Offsets(10)
    read(offsets, 20)
    offsets.finish(11)
    offsets.merge(14, encode(0b100))
    assert offsets.commit() is None
    offsets.finish(14)
    offsets.finish(15)
    assert offsets.commit() == Commit(17, "")
    offsets.finish(3)
    assert offsets.base == 17


def test_an_older_commit_of_another_owner_changes_nothing_but_adds_what_it_finished():
    """Merging is a union."""
    offsets = Offsets(10)
    read(offsets, 20)
    for offset in (10, 11, 12):
        offsets.finish(offset)
    offsets.merge(11, encode(0b10000))
    assert offsets.base == 13
    assert offsets.finished(15)
    assert offsets.commit() == Commit(13, encode(0b100))


def test_a_straggler_behind_three_quarters_of_a_window_is_crowded():
    """Then the owner produces its record again."""
    offsets = Offsets(0)
    read(offsets, CROWDED + 2)
    for offset in range(1, CROWDED):
        offsets.finish(offset)
    assert not offsets.crowded
    offsets.finish(CROWDED)
    assert offsets.crowded
    offsets.finish(0)
    assert not offsets.crowded
    assert offsets.base == CROWDED + 1


def test_what_finishes_beyond_the_window_enters_later_commits():
    """It is remembered here, and counted as committed only once a commit says so."""
    offsets = Offsets(0)
    read(offsets, WINDOW + 10)
    offsets.finish(WINDOW + 5)
    assert offsets.commit() is None
    assert not offsets.committed(WINDOW + 5)
    for offset in range(20):
        offsets.finish(offset)
    commit = offsets.commit()
    assert commit.offset == 20
    assert offsets.committed(WINDOW + 5)
    assert offsets.committed(19)
    assert not offsets.committed(20)


def test_lag_is_what_was_read_and_not_committed():
    """The metric."""
    offsets = Offsets(10)
    read(offsets, 25)
    assert offsets.lag == 15
