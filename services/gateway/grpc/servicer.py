"""gRPC for clients: `millrace.inference.v1.Inference`."""

from collections.abc import AsyncIterator
from typing import Any

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from millrace.inference.v1 import inference_pb2 as pb
from millrace.inference.v1.inference_pb2_grpc import InferenceServicer
from services.chassis.errors import ErrorCode, Problem, ProblemError, unwrap
from services.gateway.admission.doorkeeper import Doorkeeper
from services.gateway.admission.submitting import Accepted, Submitting
from services.gateway.core import messages as m
from services.gateway.core.grpc_requests import submission_of
from services.gateway.core.identity import Caller
from services.gateway.grpc.status import abort, answered
from services.gateway.reading.mailbox import Delta, Done, Event, Gone, Leaving, Mailbox, Mailboxes, Restarted
from services.gateway.reading.places import Places
from services.gateway.reading.reader import Reader
from services.gateway.reading.tasks import GONE, Tasks
from services.tasklog.core.ids import gen_text

SERVICE = "millrace.inference.v1.Inference"


class GatewayInference(InferenceServicer):
    """The gRPC door."""

    def __init__(
        self, doorkeeper: Doorkeeper, submitting: Submitting, tasks: Tasks, places: Places, mailboxes: Mailboxes
    ) -> None:
        self._doorkeeper = doorkeeper
        self._submitting = submitting
        self._tasks = tasks
        self._places = places
        self._mailboxes = mailboxes

    async def Submit(self, request: pb.SubmitRequest, context: Any) -> pb.Accepted:  # noqa: N802 - gRPC's name
        """Accept a prompt."""
        return await answered(context, self._submit(request, context))

    async def Get(self, request: pb.GetRequest, context: Any) -> pb.TaskView:  # noqa: N802
        """Look at a task."""
        return await answered(context, self._get(request, context))

    async def Cancel(self, request: pb.CancelRequest, context: Any) -> pb.CancelReply:  # noqa: N802
        """Wish a task's end."""
        return await answered(context, self._cancel(request, context))

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchEvent]:  # noqa: N802
        """Read a task from a cursor to its end."""
        mailbox = self._mailboxes.open(resumable=True)
        reader = await answered(context, self._watch(request, context, mailbox))
        async for event in self._events(context, mailbox, reader):
            yield event

    async def Generate(self, request: pb.SubmitRequest, context: Any) -> AsyncIterator[pb.WatchEvent]:  # noqa: N802
        """Submit and watch."""
        mailbox = self._mailboxes.open(resumable=True)
        accepted = await answered(context, self._accept(request, context, mailbox))
        assert accepted.reader is not None
        try:
            yield pb.WatchEvent(accepted=_accepted(accepted))
            self._submitting.begin(accepted)
            async for event in self._events(context, mailbox, accepted.reader):
                yield event
        finally:
            self._tasks.leave(accepted.reader)

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _caller(self, context: Any) -> Caller:
        metadata = dict(context.invocation_metadata() or ())
        return unwrap(self._doorkeeper.authenticate(str(metadata.get("authorization", ""))))

    async def _accept(self, request: pb.SubmitRequest, context: Any, mailbox: Mailbox | None) -> Accepted:
        caller = self._caller(context)
        # Generate's call lasts as long as its task, so the call's deadline is the task's unless it has one of its own.
        submission = unwrap(submission_of(request, context.time_remaining() if mailbox else None))
        metadata = dict(context.invocation_metadata() or ())
        result = await self._submitting.submit(caller, submission, mailbox, str(metadata.get("traceparent", ""))[:64])
        if not isinstance(result, Accepted):
            raise ProblemError(result.problem)
        return result

    async def _submit(self, request: pb.SubmitRequest, context: Any) -> pb.Accepted:
        return _accepted(await self._accept(request, context, None))

    async def _get(self, request: pb.GetRequest, context: Any) -> pb.TaskView:
        view = unwrap(await self._tasks.view(self._caller(context), request.task))
        where = await self._places.of(view)
        return pb.TaskView(
            task=view.task,
            state=view.state,
            model=view.model,
            gen=view.gen,
            offset=view.offset,
            text=view.text,
            outcome=view.outcome,
            position=where.position,
            eta_s=where.eta_s,
        )

    async def _cancel(self, request: pb.CancelRequest, context: Any) -> pb.CancelReply:
        return pb.CancelReply(state=unwrap(await self._tasks.cancel(self._caller(context), request.task)))

    async def _watch(self, request: pb.WatchRequest, context: Any, mailbox: Mailbox) -> Reader:
        caller = self._caller(context)
        return unwrap(await self._tasks.resume(caller, request.task, request.gen, request.offset, mailbox))

    async def _events(self, context: Any, mailbox: Mailbox, reader: Reader) -> AsyncIterator[pb.WatchEvent]:
        try:
            while True:
                event = await mailbox.take()
                assert event is not None
                if isinstance(event, Gone):
                    await abort(context, GONE)
                if isinstance(event, Leaving):
                    await abort(
                        context, Problem(ErrorCode.UNAVAILABLE, "this gateway leaves; watch the task at another")
                    )
                yield _event(event)
                if isinstance(event, Done):
                    return
        finally:
            self._tasks.leave(reader)


def _event(event: Event) -> pb.WatchEvent:
    match event:
        case Delta(gen, offset, text):
            return pb.WatchEvent(delta=pb.Delta(gen=gen_text(gen), offset=offset, text=text))
        case Restarted(gen):
            return pb.WatchEvent(restarted=pb.Restarted(gen=gen_text(gen)))
        case Done(gen, offset, outcome):
            return pb.WatchEvent(done=pb.Done(gen=gen_text(gen), offset=offset, outcome=outcome))
        case TaskStatus():
            where = m.place(event)
            return pb.WatchEvent(status=pb.Status(state=event.state, position=where.position, eta_s=where.eta_s))
    raise AssertionError(event)


def _accepted(accepted: Accepted) -> pb.Accepted:
    place = accepted.place
    return pb.Accepted(
        key=accepted.key, task=accepted.task, state=accepted.state, position=place.position, eta_s=place.eta_s
    )
