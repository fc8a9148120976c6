"""How the router is spoken to: `millrace.router.v1.Router`."""

from collections.abc import Mapping
from functools import cache

from google.protobuf.message import DecodeError
from prometheus_client import Counter

from millrace.batch.v1.batch_pb2 import Item
from millrace.router.v1 import router_pb2
from millrace.router.v1.router_pb2 import AcceptReply, AcceptRequest
from services.chassis.batched_server import each
from services.chassis.clock import monotonic
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.framed_server import Called
from services.chassis.framing import method
from services.chassis.metrics import router_accept_seconds, router_accepts
from services.router.acceptance import Acceptance


class RouterServicer:
    """Each submission is a task of its own: one that waits for Kafka holds up nobody. Their claims share Redis writes."""

    def __init__(self, acceptance: Acceptance) -> None:
        self._acceptance = acceptance

    @property
    def methods(self) -> Mapping[str, Called]:
        """What a batched server serves."""
        return {method(router_pb2, "Router", "Accept"): each(self.accept)}

    async def accept(self, item: Item) -> bytes:
        """AcceptRequest to AcceptReply. Raises ProblemError; `unavailable` leaves open whether the task exists."""
        began = monotonic()
        try:
            request = AcceptRequest.FromString(item.payload)
        except DecodeError:
            raise ProblemError(Problem(ErrorCode.INVALID_REQUEST, "not an AcceptRequest")) from None
        task = request.task
        if not (task.id and task.tenant and task.priority_class and task.HasField("deadline")):
            raise ProblemError(
                Problem(ErrorCode.INVALID_REQUEST, "a task needs an id, a tenant, a class and a deadline")
            )
        if not task.traceparent:
            task.traceparent = item.traceparent
        try:
            reply = await self._acceptance.accept(request, item.deadline_ms / 1000)
        except ProblemError as error:
            _counter(error.problem.code).inc()
            raise
        _counter(_result(request, reply)).inc()
        router_accept_seconds.observe(monotonic() - began)
        return reply.SerializeToString()


@cache
def _counter(result: str) -> Counter:
    return router_accepts.labels(result=result)


def _result(request: AcceptRequest, reply: AcceptReply) -> str:
    if reply.HasField("rejected"):
        return reply.rejected.code
    if reply.accepted.repeated:
        return "repeated"
    if request.HasField("answer"):
        return "cached"
    return "joined" if reply.accepted.joined else "accepted"
