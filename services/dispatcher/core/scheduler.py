"""Who gets which task, and what becomes of what workers say.

A pure state machine over the table of tasks and the roster of workers: events in, decisions out.
"""

from dataclasses import dataclass
from typing import Final

from millrace.dispatch.v1.dispatch_pb2 import Finished, Hello
from millrace.task.v1.task_pb2 import OUTCOME_KIND_COMPLETED, OUTCOME_KIND_EXPIRED
from services.dispatcher.core.decisions import Acknowledge, Assign, Close, Decision, FindHead
from services.dispatcher.core.fair_queue import token_cost
from services.dispatcher.core.roster import SILENCE_S, Roster, Worker
from services.dispatcher.core.task_state import Stage, TaskState, Trace
from services.dispatcher.core.task_table import TaskTable
from services.dispatcher.core.work import ServiceTimes

# A worker reads the wish to cancel with its first delta and tells of it. Before that only a task that waited longer than this
# can have missed one that is worth a read of its own.
CHECK_AFTER_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Said:
    """What a worker said of a task whose record was not read yet."""

    worker: str
    boot: int
    attempt: int
    finished: Finished | None = None
    needs: bool = False


class Scheduler:
    """`run_id` is the Redis run of this ownership: an end written under another one may have been forgotten."""

    def __init__(self, table: TaskTable, times: ServiceTimes, run_id: str, silence_s: float = SILENCE_S) -> None:
        self.table = table
        self.roster = Roster(silence_s)
        self.times = times
        self.caught_up = False  # every record was read that lay in the lanes when this ownership began
        self.run_id = run_id
        self._said: dict[str, _Said] = {}

    # -- records ----------------------------------------------------------------------------------------------------------

    def admit(self, state: TaskState, trace: Trace, now: float, *, expecting: bool) -> list[Decision]:
        """A record was read of a task that is not known and has not ended. `expecting`: workers may still turn up with it."""
        self.table.enter(state, trace)
        said = self._said.pop(state.id, None)
        if said:
            return self._match(state, said, now)
        if state.deadline <= now:
            return self.table.end(state, OUTCOME_KIND_EXPIRED)
        if state.task.joined not in ("", state.id) and (not trace.head or trace.follows):
            return self.table.follow(state, trace)
        if trace.head and expecting:
            self.table.expect(state)
            return []
        return self.table.wait(state)

    def stop_expecting(self) -> list[Decision]:
        """Workers had their time: what none of them claimed goes on elsewhere."""
        expected = [s for s in self.table.tasks.values() if s.stage is Stage.EXPECTED]
        return [d for state in expected for d in self.table.wait(state, first=True)] + self.table.know_followers()

    def catch_up(self) -> list[Decision]:
        """Everything was read. What a worker said of tasks that have no record concerns ends that were committed."""
        self.caught_up = True
        said, self._said = self._said, {}
        acknowledged = [Acknowledge(s.worker, task, s.attempt) for task, s in said.items() if s.finished]
        return [*acknowledged, *self.table.know_followers()]

    # -- workers ----------------------------------------------------------------------------------------------------------

    def hello(self, hello: Hello, stream: int, now: float) -> list[Decision]:
        """A worker attached: adopt what it runs, take what it finished, and move on what it does not have any more."""
        worker, replaced = self.roster.hello(
            hello.worker, hello.boot, stream, hello.slots, now, draining=hello.draining
        )
        decisions = self._lost(replaced) if replaced else []
        given, worker.running = worker.running, {}
        for running in hello.running:
            given.pop(running.task, None)
            decisions += self._adopt(worker, running.task, running.attempt, now)
        for finished in hello.finished:
            if given.pop(finished.task, None) is not None:
                worker.running[finished.task] = finished.attempt
            decisions += self.finished(worker, finished, now)
        for task, attempt in given.items():
            state = self._current(worker, task, attempt)
            if state:
                decisions += self.table.go_on(state)
        return decisions

    def started(self, task: str, attempt: int, prompt_tokens: int, unix_now: float) -> None:
        """The engine has it."""
        state = self.table.get(task)
        if state and state.attempt == attempt:
            state.started, state.prompt_tokens = True, prompt_tokens
            state.first_started = state.first_started or unix_now
            self.table.queue.correct(task, self.table.used(state))

    def progress(self, task: str, attempt: int, tokens: int) -> None:
        """It has produced this many tokens."""
        state = self.table.get(task)
        if state and state.attempt == attempt:
            state.output_tokens = tokens
            self.table.queue.correct(task, self.table.used(state))

    def finished(self, worker: Worker, finished: Finished, now: float) -> list[Decision]:
        """An attempt is over: ended, failed, or handed back."""
        task, attempt = finished.task, finished.attempt
        if worker.running.get(task) == attempt:
            del worker.running[task]
        acknowledge = Acknowledge(worker.name, task, attempt)
        state = self.table.get(task)
        if state is None:
            if self.caught_up:
                return [acknowledge]
            self._said[task] = _Said(worker.name, worker.boot, attempt, finished)
            return []
        if state.stage in (Stage.ENDING, Stage.ENDED):
            return [acknowledge]
        if finished.failure or finished.handed_back:
            if state.stage is not Stage.RUNNING or state.attempt != attempt:
                return [acknowledge]
            state.avoid = worker.name
            if finished.failure:
                state.history.failed(worker.name, finished.failure)
            return [acknowledge, *self.table.go_on(state)]
        if finished.run_id != self.run_id:
            if state.stage is Stage.RUNNING and state.attempt != attempt:
                return [acknowledge]
            self.table.leave(state)
            state.prefer = worker.name
            return [acknowledge, *self.table.wait(state, first=True)]
        self._learn(state, finished, now)
        self.table.leave(state)
        state.stage = Stage.ENDING
        return [Close(state, worker.name, attempt, finished.outcome.kind == OUTCOME_KIND_COMPLETED)]

    def fenced(self, worker: Worker, task: str, attempt: int) -> list[Decision]:
        """A higher attempt owns the log. If we gave none, somebody else did."""
        state = self._current(worker, task, attempt)
        worker.running.pop(task, None)
        if state is None:
            return []
        self.table.expect(state)
        return [FindHead(state)]

    def head_found(self, state: TaskState, head: int) -> list[Decision]:
        """The log's newest attempt, which the next one must outrank."""
        state.outranked(head)
        return self.table.go_on(state) if state.stage is Stage.EXPECTED else []

    def need(self, worker: Worker, task: str, attempt: int, now: float) -> list[Decision]:
        """Redis forgot, and this worker has the text: the next attempt is its own, whatever its credits."""
        state = self.table.get(task)
        if state is None:
            if not self.caught_up:
                self._said[task] = _Said(worker.name, worker.boot, attempt, needs=True)
            return []
        if state.stage is Stage.ENDING or state.attempt != attempt or not state.held_by(worker.name, worker.boot):
            return []
        return [self._assign(state, worker, now)]

    def credit(self, worker: Worker, slots: int) -> None:
        """It can take more."""
        worker.credits += slots

    def lost(self, now: float) -> list[Decision]:
        """Workers that fell silent: their tasks go on elsewhere."""
        return [d for worker in self.roster.lost(now) for d in self._lost(worker)]

    # -- assignment -------------------------------------------------------------------------------------------------------

    def assign(self, now: float, at_most: int) -> list[Decision]:
        """Give out turns while workers take them."""
        decisions: list[Decision] = []
        while len(decisions) < at_most and self.roster.free() and (task := self.table.queue.take()):
            state = self.table.tasks[task]
            if now + self.times.at_least(state.priority_class, state.cost) > state.deadline:
                decisions += self.table.end(state, OUTCOME_KIND_EXPIRED)
                continue
            worker = self.roster.free(state.prefer, state.avoid)
            assert worker
            worker.credits -= 1
            decisions.append(self._assign(state, worker, now, check=now - state.since > CHECK_AFTER_S))
        return decisions

    @staticmethod
    def stands(assign: Assign) -> bool:
        """Was the assignment not overtaken by events before it was sent?"""
        return assign.state.stage is Stage.RUNNING and assign.state.attempt == assign.attempt

    def call_off(self, assign: Assign) -> list[Decision]:
        """The cancel of a task is wished whose assignment was not sent yet: undo it, unless the task goes on for others."""
        state = assign.state
        if not self.stands(assign):
            return []
        if not self.table.goes_on_for_others(state):
            worker = self.roster.get(assign.worker)
            if worker and worker.running.pop(state.id, None) and worker.connected:
                worker.credits += 1
            self.table.expect(state)
        return self.table.cancel(state)

    def cancel(self, task: str) -> list[Decision]:
        """The cancel of a task is wished."""
        state = self.table.get(task)
        return self.table.cancel(state) if state else []

    def running_work_s(self, now: float) -> float:
        """Service seconds that the running tasks still need, by the mean."""
        mean = self.times.mean_s
        running = (s for w in self.roster for t in w.running if (s := self.table.get(t)))
        return sum(max(mean - (now - s.assigned_at), 0.0) for s in running)

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _assign(self, state: TaskState, worker: Worker, now: float, *, check: bool = False) -> Assign:
        previous = state.attempt if state.held_by(worker.name, worker.boot) else 0
        attempt = self.table.next_attempt(state)
        self.table.run(state, worker.name, worker.boot, attempt, now)
        state.history.begun += 1
        worker.running[state.id] = attempt
        return Assign(worker.name, state, attempt, previous, check)

    def _adopt(self, worker: Worker, task: str, attempt: int, now: float) -> list[Decision]:
        state = self.table.get(task)
        if state is None:
            if not self.caught_up:
                self._said[task] = _Said(worker.name, worker.boot, attempt)
        elif state.stage is Stage.RUNNING and state.attempt == attempt:
            worker.running[task] = attempt
        elif state.stage in (Stage.WAITING, Stage.EXPECTED, Stage.FOLLOWING) and attempt >= state.attempt:
            self.table.run(state, worker.name, worker.boot, attempt, now)
            worker.running[task] = attempt
        return []

    def _match(self, state: TaskState, said: _Said, now: float) -> list[Decision]:
        """The record of a task that a worker spoke of before."""
        worker = self.roster.get(said.worker)
        if worker is None or worker.boot != said.boot:
            return self.table.wait(state, first=True)
        decisions: list[Decision] = []
        if said.attempt >= state.attempt:
            self.table.run(state, worker.name, worker.boot, said.attempt, now)
            worker.running[state.id] = said.attempt
        else:
            decisions += self.table.wait(state, first=True)
        if said.finished:
            decisions += self.finished(worker, said.finished, now)
        elif said.needs:
            decisions += self.need(worker, state.id, said.attempt, now)
        return decisions

    def _current(self, worker: Worker, task: str, attempt: int) -> TaskState | None:
        """The task, if this attempt at this worker is its newest and not over."""
        state = self.table.get(task)
        if (
            state
            and state.stage is Stage.RUNNING
            and state.attempt == attempt
            and state.held_by(worker.name, worker.boot)
        ):
            return state
        return None

    def _lost(self, worker: Worker) -> list[Decision]:
        decisions: list[Decision] = []
        for task, attempt in worker.running.items():
            state = self._current(worker, task, attempt)
            if state:
                further = state.output_tokens > state.most_tokens
                state.history.lost(worker.name, started=state.started, got_further=further)
                decisions += self.table.go_on(state)
        return decisions

    def _learn(self, state: TaskState, finished: Finished, now: float) -> None:
        usage = finished.outcome.usage
        cost = token_cost(usage.prompt_tokens, usage.completion_tokens)
        if finished.outcome.kind == OUTCOME_KIND_COMPLETED and state.started and state.history.begun == 1:
            self.times.learn(state.priority_class, state.cost, max(now - state.assigned_at, 1e-4))
        self.table.queue.settle(state.id, cost)
