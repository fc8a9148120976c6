"""Twins and their cancels, in any order: no text breaks off under a follower, nothing runs on for nobody."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from millrace.task.v1.task_pb2 import OUTCOME_KIND_CANCELLED
from services.dispatcher.core.decisions import Acknowledge, Assign, Close, Echo, End, Follow, Stop
from services.dispatcher.core.task_state import Stage
from tests.support.scheduling_desk import Desk

PATIENCE = st.sampled_from([1000.0, 5.0])
LIVE = (Stage.WAITING, Stage.FOLLOWING, Stage.RUNNING, Stage.EXPECTED)


class TwinsMachine(RuleBasedStateMachine):
    """One worker, as many slots as it takes. What the desk decides is carried out at once, as far as it concerns twins."""

    def __init__(self):
        super().__init__()
        self.desk = Desk(max_attempts=10**6)
        self.desk.hello(credit=10**6)
        self.count = 0
        self.wished: set[str] = set()
        self.stopped: set[tuple[str, int]] = set()
        self.ended: set[str] = set()

    def live(self, *stages):
        return sorted(task for task, state in self.desk.table.tasks.items() if state.stage in (stages or LIVE))

    def carry_out(self, decisions):
        table = self.desk.table
        for decision in decisions:
            match decision:
                case Stop(_, task, attempt):
                    assert task in self.wished, "only who asked for it is stopped"
                    assert not table.followers.of(task), "others show this text"
                    self.stopped.add((task, attempt))
                case End(state, _, kind):
                    assert state.id not in self.ended, "one end each"
                    self.ended.add(state.id)
                    if kind == OUTCOME_KIND_CANCELLED:
                        assert state.id in self.wished
                        assert not state.history.begun or not table.followers.of(state.id)
                    self.carry_out(table.closed(state, self.desk.now, answered=False))
                case Echo(state) | Close(state):
                    assert state.id not in self.ended, "one end each"
                    self.ended.add(state.id)
                    answered = not isinstance(decision, Close) or decision.answered
                    self.carry_out(table.closed(state, self.desk.now, answered=answered))
                case Assign() | Acknowledge() | Follow():
                    pass
                case _:
                    raise AssertionError(decision)

    @rule(patience=PATIENCE)
    def lead(self, patience):
        self.come("", patience)
        self.carry_out(self.desk.assign())

    @precondition(lambda self: self.desk.table.tasks)
    @rule(data=st.data(), patience=PATIENCE)
    def join(self, data, patience):
        self.come(data.draw(st.sampled_from(self.live() or sorted(self.desk.table.tasks))), patience)

    def come(self, joined, patience):
        self.count += 1
        self.carry_out(self.desk.admit(f"t{self.count}", joined=joined, deadline=self.desk.now + patience))

    @rule()
    def assign(self):
        self.carry_out(self.desk.assign())

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def cancel(self, data):
        task = data.draw(st.sampled_from(self.live()))
        self.wished.add(task)
        self.carry_out(self.desk.scheduler.cancel(task))

    @precondition(lambda self: self.live(Stage.RUNNING))
    @rule(data=st.data(), how=st.sampled_from([{}, {"handed_back": True}, {"failure": "no"}]))
    def finish(self, data, how):
        task = data.draw(st.sampled_from(self.live(Stage.RUNNING)))
        self.carry_out(self.desk.finished(task, self.desk.table.tasks[task].attempt, **how))

    @rule()
    def time_passes(self):
        self.desk.now += 2.0
        self.carry_out(self.desk.table.expire(self.desk.now))

    @invariant()
    def nobody_runs_on_for_nobody(self):
        table = self.desk.table
        for task in self.wished & set(self.live()):
            state = table.tasks[task]
            assert table.followers.of(task) or (task, state.attempt) in self.stopped, state

    @invariant()
    def a_follower_has_somebody_to_follow(self):
        table = self.desk.table
        for task in self.live(Stage.FOLLOWING):
            leader = table.followers.leader_of(task)
            assert leader in self.live(Stage.WAITING, Stage.RUNNING), leader


TestTwins = TwinsMachine.TestCase
TestTwins.settings = settings(max_examples=60, stateful_step_count=40)
