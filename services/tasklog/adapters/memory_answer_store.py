"""Finished answers in memory, for tests."""

from millrace.task.v1.task_pb2 import OUTCOME_KIND_COMPLETED, Outcome, Task


class MemoryAnswerStore:
    """`AnswerStore` in dictionaries by ticket key: whole answers in `answers`, flights that ended without one in `ended`."""

    def __init__(self) -> None:
        self.answers: dict[bytes, str] = {}
        self.ended: set[bytes] = set()

    async def store(self, task: Task, text: str, outcome: Outcome) -> None:
        """Store a whole answer; anything less ends the flight."""
        if outcome.kind == OUTCOME_KIND_COMPLETED:
            self.answers[task.cache_ticket.key] = text
        else:
            self.ended.add(task.cache_ticket.key)
