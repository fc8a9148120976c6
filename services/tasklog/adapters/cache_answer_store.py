"""Finished answers go to the cache service, under the ticket that it gave out for the task."""

from typing import Final

from millrace.cache.v1.cache_pb2 import Answer, StoreRequest
from millrace.task.v1.task_pb2 import OUTCOME_KIND_COMPLETED, Outcome, Task
from services.chassis.batched import BatchedClient
from services.chassis.clock import now

PATIENCE_S: Final = 1.0


class CacheAnswerStore:
    """`AnswerStore` on a running `BatchedClient` of `Cache/Store`."""

    def __init__(self, client: BatchedClient) -> None:
        self._client = client

    async def store(self, task: Task, text: str, outcome: Outcome) -> None:
        """Store a whole answer; anything less ends the flight. Raises ProblemError."""
        request = StoreRequest(key=task.cache_ticket.key, fence=task.cache_ticket.fence)
        if outcome.kind == OUTCOME_KIND_COMPLETED:
            request.answer.CopyFrom(Answer(text=text, finish_reason=outcome.finish_reason, usage=outcome.usage))
        await self._client.call(request.SerializeToString(), now() + PATIENCE_S, task.traceparent)
