"""`POST /v1/chat/completions`: unmodified OpenAI clients, plain and streamed."""

import time

from aiohttp import web

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from services.chassis.errors import ErrorCode, Problem, unwrap
from services.gateway.admission.doorkeeper import Doorkeeper
from services.gateway.admission.submitting import Accepted, Submitting
from services.gateway.core import openai, sse
from services.gateway.http.requests import body_of, caller_of, idempotency_key, traceparent
from services.gateway.http.responses import problem_response
from services.gateway.http.task_stream import HEADERS
from services.gateway.incident import internal
from services.gateway.reading.mailbox import Delta, Done, Gone, Leaving, Mailbox, Mailboxes, Restarted
from services.gateway.reading.tasks import Tasks

_RESTARTED = Problem(ErrorCode.RESTARTED, "the text so far was lost with the process that had it; ask again")
_LEAVING = Problem(ErrorCode.UNAVAILABLE, "this gateway leaves; the task goes on and can be read by its id")
_GONE = Problem(ErrorCode.GONE, "the answer is no longer kept")


class ChatCompletions:
    """The handler of chat completions."""

    def __init__(
        self, doorkeeper: Doorkeeper, submitting: Submitting, tasks: Tasks, mailboxes: Mailboxes, *, heartbeat_s: float
    ) -> None:
        self._doorkeeper = doorkeeper
        self._submitting = submitting
        self._tasks = tasks
        self._mailboxes = mailboxes
        self._heartbeat_s = heartbeat_s

    def routes(self) -> list[web.RouteDef]:
        """The one route."""
        return [web.post("/v1/chat/completions", self.create)]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Submit, then wait for the answer or stream it."""
        caller = caller_of(request, self._doorkeeper)
        asked = await body_of(request, openai.decode_chat_request)
        submission = unwrap(openai.submission_of(asked, idempotency_key(request)))
        mailbox = self._mailboxes.open(resumable=False)
        accepted = await self._submitting.submit(caller, submission, mailbox, traceparent(request))
        if not isinstance(accepted, Accepted):
            return problem_response(accepted.problem, accepted.limits.headers)
        assert accepted.reader is not None
        headers = {"x-millrace-task": accepted.task, **accepted.limits.headers}
        answer = openai.Completions(accepted.task, asked.model, int(time.time()))
        try:
            self._submitting.begin(accepted)
            if asked.stream:
                options = asked.stream_options
                with_usage = options is not None and options.include_usage
                return await self._stream(request, mailbox, answer, headers, with_usage=with_usage)
            return await self._whole(mailbox, answer, headers)
        finally:
            self._tasks.leave(accepted.reader)

    async def _whole(self, mailbox: Mailbox, answer: openai.Completions, headers: dict[str, str]) -> web.Response:
        texts: list[str] = []
        while True:
            match await mailbox.take():
                case Delta(_, _, text):
                    texts.append(text)
                case Restarted():
                    texts.clear()
                case Gone():
                    return problem_response(_GONE, headers)
                case Leaving():
                    return problem_response(_LEAVING, headers)
                case Done(_, _, outcome):
                    problem = openai.problem_of(outcome)
                    if problem is not None:
                        return problem_response(problem, headers)
                    body = answer.whole("".join(texts), outcome)
                    return web.Response(body=body, headers=headers, content_type="application/json")

    async def _stream(
        self,
        request: web.Request,
        mailbox: Mailbox,
        answer: openai.Completions,
        headers: dict[str, str],
        *,
        with_usage: bool,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS | headers)
        await response.prepare(request)
        try:
            await response.write(sse.data(answer.first()))
            while True:
                event = await mailbox.take(self._heartbeat_s)
                match event:
                    case None | TaskStatus():
                        await response.write(sse.KEEP_ALIVE)
                    case Delta(_, _, text):
                        await response.write(sse.data(answer.text(text)))
                    case Restarted():
                        return await _broken(response, _RESTARTED)
                    case Gone():
                        return await _broken(response, _GONE)
                    case Leaving():
                        return await _broken(response, _LEAVING)
                    case Done(_, _, outcome):
                        problem = openai.problem_of(outcome)
                        if problem is not None:
                            return await _broken(response, problem)
                        await response.write(sse.data(answer.last(outcome)))
                        if with_usage:
                            await response.write(sse.data(answer.usage(outcome)))
                        await response.write(sse.DONE)
                        return response
        except ConnectionResetError:
            raise  # the client is gone, nobody is to be told
        except Exception as bug:  # noqa: BLE001 - the headers are out: the stream itself has to say it
            return await _broken(response, internal(bug))


async def _broken(response: web.StreamResponse, problem: Problem) -> web.StreamResponse:
    """End a stream in the middle with a typed error, never silently."""
    await response.write(sse.data(openai.error_body(problem)))
    return response
