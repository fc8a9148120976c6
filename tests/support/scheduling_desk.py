"""The scheduler of one pool with a clock of its own, spoken to in short words."""

from millrace.dispatch.v1.dispatch_pb2 import Finished, Hello, Running
from millrace.task.v1.task_pb2 import OUTCOME_KIND_COMPLETED, PRIORITY_CLASS_STANDARD, Outcome, Task, Usage
from services.dispatcher.core.scheduler import Scheduler
from services.dispatcher.core.task_state import Place, TaskState, Trace
from services.dispatcher.core.task_table import TaskTable
from services.dispatcher.core.work import ServiceTimes

EPOCH = 7
FIRST = (EPOCH << 20) + 1
LANE = (PRIORITY_CLASS_STANDARD, 0)


class Desk:
    """A scheduler with a clock and short words."""

    def __init__(self, *, caught_up=True, max_attempts=3):
        self.now = 100.0
        self.scheduler = Scheduler(TaskTable(EPOCH, 2.0, max_attempts, self.now), ServiceTimes(), "run")
        if caught_up:
            self.scheduler.catch_up()
        self.table = self.scheduler.table
        self.streams = 0

    def admit(self, name, *, trace=None, expecting=False, deadline=1000.0, joined=""):
        task = Task(id=name, tenant="anna", joined=joined)
        state = TaskState(task, PRIORITY_CLASS_STANDARD, 100.0, deadline, 10, self.now, [Place(LANE, 0)])
        return self.scheduler.admit(state, trace or Trace(), self.now, expecting=expecting)

    def hello(self, name="w1", *, credit=1, boot=1, running=None, finished=(), draining=False):
        self.streams += 1
        hello = Hello(
            worker=name,
            boot=boot,
            slots=4,
            running=[Running(task=t, attempt=a) for t, a in (running or {}).items()],
            finished=finished,
            draining=draining,
        )
        decisions = self.scheduler.hello(hello, self.streams, self.now)
        self.scheduler.credit(self.worker(name), credit)
        return decisions

    def worker(self, name="w1"):
        return self.scheduler.roster.get(name)

    def assign(self):
        return self.scheduler.assign(self.now, 100)

    def finished(self, task, attempt=FIRST, *, worker="w1", run="run", **more):
        outcome = Outcome(kind=OUTCOME_KIND_COMPLETED, usage=Usage(prompt_tokens=10, completion_tokens=5))
        finished = Finished(task=task, attempt=attempt, run_id=run, outcome=outcome, **more)
        return self.scheduler.finished(self.worker(worker), finished, self.now)

    def running(self, name="t", worker="w1"):
        """Admit a task and give it to a worker."""
        if self.worker(worker) is None:
            self.hello(worker)
        self.admit(name)
        (assign,) = self.assign()
        return assign

    def stage(self, name="t"):
        return self.table.tasks[name].stage
