"""The tasks of a pool, from the reading of their record until it need not be read again.

Every change of a task's stage is made here. Methods return what is to be done about it.
"""

from typing import Final

from millrace.task.v1.task_pb2 import (
    OUTCOME_KIND_CANCELLED,
    OUTCOME_KIND_EXPIRED,
    OUTCOME_KIND_FAILED,
    OutcomeKind,
)
from services.dispatcher.core.attempts import next_attempt
from services.dispatcher.core.commit_horizon import CommitHorizon
from services.dispatcher.core.deadlines import Deadlines
from services.dispatcher.core.decisions import Decision, Echo, End, FindLeader, Follow, Stop
from services.dispatcher.core.fair_queue import FairQueue, token_cost
from services.dispatcher.core.followers import Followers
from services.dispatcher.core.task_state import Stage, TaskState, Trace

ORPHAN_S: Final = 5.0  # how long a follower waits for the record of a leader that is claimed

_WITHOUT_A_WORKER: Final = (Stage.WAITING, Stage.FOLLOWING, Stage.EXPECTED)


class TaskTable:
    """`epoch` numbers the attempts; `horizon_s` is how long an end may be forgotten by Redis."""

    def __init__(self, epoch: int, horizon_s: float, max_attempts: int, now: float) -> None:
        self.epoch = epoch
        self.max_attempts = max_attempts
        self.tasks: dict[str, TaskState] = {}
        self.arrived = 0
        self.dead = 0
        self.last_dead_at = 0.0  # Unix s
        self.queue = FairQueue()
        self.followers = Followers()
        self._deadlines = Deadlines(now)
        self._horizon = CommitHorizon(horizon_s)
        self._orphans: dict[str, float] = {}
        self._followers_known = False

    def get(self, task: str) -> TaskState | None:
        """The task, from its record until it is forgotten."""
        return self.tasks.get(task)

    # -- in ---------------------------------------------------------------------------------------------------------------

    def enter(self, state: TaskState, trace: Trace) -> None:
        """Know the task from now on; one of the methods below says what becomes of it."""
        self.tasks[state.id] = state
        self.arrived += 1
        state.attempt = max(state.attempt, trace.head)
        state.history.begun = trace.begun

    def wait(self, state: TaskState, *, first: bool = False) -> list[Decision]:
        """Let the task wait for its turn; `first` of its tenant if it had it before."""
        self.queue.settle(state.id, 0.0)
        state.stage = Stage.WAITING
        self._deadlines.add(state.id, state.deadline)
        self.queue.put(state.id, state.task.tenant, state.priority_class, state.cost, first=first)
        return []

    def expect(self, state: TaskState) -> None:
        """Let the task wait for the worker that seems to run it."""
        state.stage = Stage.EXPECTED

    def run(self, state: TaskState, worker: str, boot: int, attempt: int, now: float) -> None:
        """The attempt is at the worker. Called for a task whose turn it was, or that a worker has already."""
        self.leave(state)
        self.queue.adopt(state.id, state.task.tenant, state.priority_class, state.cost)
        state.stage, state.attempt, state.worker, state.boot = Stage.RUNNING, attempt, worker, boot
        state.prefer = state.avoid = ""
        state.most_tokens = max(state.most_tokens, state.output_tokens)
        state.assigned_at, state.started, state.output_tokens = now, False, 0

    def leave(self, state: TaskState) -> None:
        """The task waits for nothing any more."""
        self.queue.remove(state.id)
        self.followers.leave(state.id)
        self._orphans.pop(state.id, None)
        self._deadlines.discard(state.id, state.deadline)

    def used(self, state: TaskState) -> float:
        """Token cost of what its present attempt has done so far."""
        prompt = state.prompt_tokens or state.task.estimated_prompt_tokens
        return token_cost(prompt, state.output_tokens)

    def next_attempt(self, state: TaskState) -> int:
        """A number above all that were given for the task."""
        return next_attempt(state.attempt, self.epoch)

    # -- out --------------------------------------------------------------------------------------------------------------

    def end(self, state: TaskState, kind: OutcomeKind, message: str = "") -> list[Decision]:
        """End a task here that no worker has. If it was the last to follow a leader whose cancel is wished, that one goes too."""
        leader = self.tasks.get(self.followers.leader_of(state.id) or "")
        self.leave(state)
        self.queue.settle(state.id, 0.0)
        state.stage = Stage.ENDING
        state.outranked(self.next_attempt(state))
        return [End(state, state.attempt, kind, message), *(self._heed(leader) if leader else ())]

    def cancel(self, state: TaskState) -> list[Decision]:
        """Its cancel is wished. A task that runs is its worker's to end; one that goes on for others is remembered."""
        state.cancel_wished = True
        return self._heed(state)

    def know_followers(self) -> list[Decision]:
        """Who follows whom is known by now, or nobody waits for it any longer: the wishes that waited for that count."""
        self._followers_known = True
        return [d for state in tuple(self.tasks.values()) for d in self._heed(state)]

    def goes_on_for_others(self, state: TaskState) -> bool:
        """Would its end break a text off that its followers may be showing? Before it began there is none."""
        begun = state.stage is Stage.RUNNING or state.history.begun > 0
        return begun and (bool(self.followers.of(state.id)) or not self._followers_known)

    def _heed(self, state: TaskState) -> list[Decision]:
        """A leader with followers is cancelled only when all of them are."""
        if not state.cancel_wished or self.goes_on_for_others(state):
            return []
        if state.stage is Stage.RUNNING:
            return [Stop(state.worker, state.id, state.attempt)]
        return self.end(state, OUTCOME_KIND_CANCELLED) if state.stage in _WITHOUT_A_WORKER else []

    def go_on(self, state: TaskState) -> list[Decision]:
        """An attempt is over without an end: wait for the next one, or be buried, or end as it was wished."""
        if reason := state.history.give_up(self.max_attempts):
            return self.end(state, OUTCOME_KIND_FAILED, reason)
        return [*self.wait(state, first=True), *self._heed(state)]

    def buried(self, at: float) -> None:
        """A task went to the dead letters at this instant, in Unix s."""
        self.dead, self.last_dead_at = self.dead + 1, at

    def expire(self, now: float) -> list[Decision]:
        """End what waited beyond its deadline; let followers lead whose leader never came."""
        decisions: list[Decision] = []
        for task in self._deadlines.passed(now):
            state = self.tasks.get(task)
            if state and state.stage in _WITHOUT_A_WORKER and state.deadline <= now:
                decisions += self.end(state, OUTCOME_KIND_EXPIRED)
        for task in [task for task, until in self._orphans.items() if until <= now]:
            del self._orphans[task]
            leader = self.followers.leader_of(task)
            if leader and leader not in self.tasks:
                decisions += self._promote(leader)
        return decisions

    def closed(self, state: TaskState, now: float, *, answered: bool) -> list[Decision]:
        """The end is written and `ctl` says so: the horizon begins, and followers learn of it."""
        self.leave(state)
        state.stage, state.answered = Stage.ENDED, answered
        self._horizon.ended(state.id, state.attempt, now)
        if answered:
            return [d for task in self.followers.of(state.id) for d in self._echo(self.tasks[task], state)]
        return self._promote(state.id)

    def any_due(self, now: float) -> bool:
        """Did any end pass the horizon?"""
        return self._horizon.ready(now)

    def due(self, now: float) -> list[TaskState]:
        """Ends that passed the horizon. One that was given a new attempt meanwhile is not among them."""
        states = ((self.tasks.get(task), attempt) for task, attempt in self._horizon.due(now))
        return [s for s, attempt in states if s and s.stage is Stage.ENDED and s.attempt == attempt]

    def forget(self, state: TaskState) -> None:
        """Its records are finished."""
        del self.tasks[state.id]

    # -- twins ------------------------------------------------------------------------------------------------------------

    def follow(self, state: TaskState, trace: Trace) -> list[Decision]:
        """Let the task follow the twin it joined, or whom that one follows."""
        name = self.followers.leader_of(state.task.joined) or state.task.joined
        leader = self.tasks.get(name)
        state.stage = Stage.FOLLOWING
        self._deadlines.add(state.id, state.deadline)
        self.followers.join(state.id, name)
        if leader is None:
            return [FindLeader(state, name)]
        if leader.stage is Stage.ENDED:
            return self._echo(state, leader) if leader.answered else self._promote(name)
        return [] if trace.follows == name else self._follow(state, name)

    def leader_found(
        self, state: TaskState, leader: str, now: float, *, answered: bool, to_come: bool
    ) -> list[Decision]:
        """What was found of a leader that had no record here."""
        if state.stage is not Stage.FOLLOWING or self.followers.leader_of(state.id) != leader:
            return []
        if answered:
            self.leave(state)
            return self._echo(state, None, leader)
        if leader in self.tasks:
            return self._follow(state, leader)
        if to_come:
            self._orphans[state.id] = now + ORPHAN_S
            return self._follow(state, leader)
        return self._promote(leader)

    def _follow(self, state: TaskState, leader: str) -> list[Decision]:
        self._outrank(state, self.tasks.get(leader))
        return [Follow(state, state.attempt, leader)]

    def _echo(self, state: TaskState, leader: TaskState | None, name: str = "") -> list[Decision]:
        """Its answer is its leader's. The attempt lies above the leader's, whose text it repeats."""
        self.leave(state)
        state.stage = Stage.ENDING
        self._outrank(state, leader)
        return [Echo(state, state.attempt, leader.id if leader else name)]

    def _promote(self, leader: str) -> list[Decision]:
        """`leader` ended without an answer: one of its followers leads the others."""
        promoted = self.followers.promote(leader)
        if promoted is None:
            return []
        first, rest = self.tasks[promoted[0]], promoted[1]
        self._outrank(first, self.tasks.get(leader))
        self.leave(first)
        decisions = self.wait(first, first=True)
        for task in rest:
            decisions += self._follow(self.tasks[task], first.id)
        return decisions

    def _outrank(self, state: TaskState, leader: TaskState | None) -> None:
        """Take a number above the leader's too: readers may hold its text, and only a higher number begins another one."""
        state.outranked(next_attempt(max(state.attempt, leader.attempt if leader else 0), self.epoch))
