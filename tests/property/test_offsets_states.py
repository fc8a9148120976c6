"""Offsets against a set: whatever order tasks finish in, whoever commits, nothing unfinished is ever committed."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.dispatcher.core.offsets import Offsets, decode


class OffsetsMachine(RuleBasedStateMachine):
    """Owners come and go; each reads on from the commit it finds."""

    def __init__(self):
        super().__init__()
        self.log_end = 0
        self.finished: set[int] = set()
        self.stored = (0, "")
        self.highest = 0
        self.owner = Offsets(0)

    @rule(count=st.integers(1, 2000))
    def produce_and_read(self, count):
        self.log_end += count
        for offset in range(self.owner.position, self.log_end):
            self.owner.read(offset)

    @rule(data=st.data(), count=st.integers(1, 40))
    def finish(self, data, count):
        waiting = [o for o in range(self.owner.base, self.owner.position) if not self.owner.finished(o)]
        for _ in range(min(count, len(waiting))):
            offset = data.draw(st.sampled_from(waiting))
            self.owner.finish(offset)
            self.finished.add(offset)

    @rule(count=st.integers(1, 3000))
    def finish_the_newest(self, count):
        for offset in range(max(self.owner.base, self.owner.position - count), self.owner.position):
            self.owner.finish(offset)
            self.finished.add(offset)

    @rule()
    def commit(self):
        if commit := self.owner.commit():
            self.stored = commit.offset, commit.metadata
            assert len(commit.metadata) <= 684

    @rule()
    def take_over(self):
        self.owner = Offsets(*self.stored)
        for offset in range(self.owner.position, self.log_end):
            self.owner.read(offset)

    @rule()
    def meet_another_owners_commit(self):
        self.owner.merge(*self.stored)
        for offset in range(self.owner.position, self.log_end):
            self.owner.read(offset)

    @invariant()
    def commits_tell_the_truth(self):
        base, metadata = self.stored
        assert all(offset in self.finished for offset in range(self.highest, base))
        bits = decode(metadata)
        assert all(base + i in self.finished for i in range(bits.bit_length()) if bits >> i & 1)

    @invariant()
    def commits_never_go_back(self):
        assert self.stored[0] >= self.highest
        self.highest = self.stored[0]

    @invariant()
    def the_owner_believes_nothing_that_is_not_so(self):
        assert self.owner.base <= self.owner.position
        assert not self.owner.finished(self.owner.base)
        believed = (o for o in range(self.owner.base, self.owner.position) if self.owner.finished(o))
        assert self.finished.issuperset(believed)


TestOffsets = OffsetsMachine.TestCase
TestOffsets.settings = settings(max_examples=60, stateful_step_count=25)
