"""From a valid submission to an accepted task: limits, cache, router, acknowledgment. The same for all transports."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from millrace.cache.v1.cache_pb2 import LookupReply, LookupRequest, Scope, StoreRequest
from millrace.router.v1 import router_pb2
from millrace.router.v1.router_pb2 import AcceptRequest
from millrace.task.v1.task_pb2 import CacheMode, CacheTicket, Sampling, Task
from services.chassis import metrics
from services.chassis.background import Background
from services.chassis.clock import monotonic, now
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.gateway.admission.limiting import Limited, Limiting, Limits
from services.gateway.admission.twins import Twins
from services.gateway.core.canonical import canonical_request
from services.gateway.core.estimates import Place, place_of, prompt_tokens
from services.gateway.core.identity import Caller, Directory
from services.gateway.core.messages import code_named
from services.gateway.core.submission import Submission, body_hash
from services.gateway.core.task_id import task_id
from services.gateway.ports import Accept, Lookup, Signals, Store
from services.gateway.reading.departures import Departures
from services.gateway.reading.reader import Reader, Sink
from services.gateway.reading.readers import Readers

log = logging.getLogger(__name__)

_UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The task is committed. `reader` is held until `Submitting.begin`; None where nobody reads."""

    key: str
    task: str
    pool: str
    state: str
    place: Place
    cache: str | None
    reader: Reader | None
    repeated: bool
    leader: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not; after `unavailable` nobody knows, and the same key finds out."""

    problem: Problem
    limits: Limits = _UNLIMITED


class Submitting:
    """Accepts prompts. `directory` gives the present configuration."""

    def __init__(
        self,
        *,
        secret: bytes,
        directory: Callable[[], Directory],
        limiting: Limiting,
        lookup: Lookup | None,
        store: Store | None,
        accept: Accept,
        readers: Readers,
        signals: Signals,
        departures: Departures,
        cache_budget_s: float,
        accept_s: float,
    ) -> None:
        self._secret = secret
        self._directory = directory
        self._limiting = limiting
        self._twins = Twins(lookup, cache_budget_s) if lookup else None
        self._store = store
        self._accept = accept
        self._readers = readers
        self._signals = signals
        self._departures = departures
        self._accept_s = accept_s
        self._work = Background()

    async def accept(
        self, caller: Caller, submission: Submission, sink: Sink | None, traceparent: str = ""
    ) -> Accepted | Refused:
        """Accept, or say why not. With a sink a reader waits before the task exists, so that no frame is lost."""
        at, began = now(), monotonic()
        directory = self._directory()
        max_tokens = directory.admit(caller, submission)
        if isinstance(max_tokens, Problem):
            return _refused(max_tokens)
        prompt = prompt_tokens(submission.content_bytes)
        limits = await self._limiting.admit(caller, prompt + max_tokens)
        if isinstance(limits, Limited):
            return _refused(limits.problem, limits.limits)
        key = submission.key or secrets.token_hex(16)
        task = _task(caller, submission, secret=self._secret, key=key, max_tokens=max_tokens, prompt=prompt, at=at)
        task.traceparent = traceparent
        request = AcceptRequest(task=task)
        mark, found = await self._ask_cache(directory, caller, submission, request)
        if submission.cache_mode == CacheMode.CACHE_MODE_ONLY and not mark:
            await self._give_up_lead(found)
            return _refused(Problem(ErrorCode.UNAVAILABLE, "the answer is not in the cache", "cache"), limits)
        reader = None
        if sink is not None:
            reader = self._readers.open(task.id, sink, held=True)
            reader.submitted_at = began
            request.task.route.CopyFrom(self._readers.route(reader))
        result = await self._commit(request, at + min(self._accept_s, submission.deadline_s))
        if isinstance(result, Problem):
            if reader is not None:
                self._readers.close(reader)
            if result.code is not ErrorCode.UNAVAILABLE:  # then nothing was produced, and this task leads nobody
                await self._give_up_lead(found)
            return _refused(result, limits)
        metrics.gateway_ack_seconds.observe(monotonic() - began)
        pool = result.pool
        self._departures.remember(task.id, pool, submission.on_disconnect, at + submission.deadline_s)
        if result.repeated or (mark == "coalesced" and not result.joined):
            mark = None
        signal = self._signals.signals.get(pool)
        return Accepted(
            key=key,
            task=task.id,
            pool=pool,
            state="completed" if mark == "exact" else "queued",
            place=Place() if mark == "exact" or result.repeated else place_of(signal, self._signals.age_s(pool)),
            cache=mark,
            reader=reader,
            repeated=result.repeated,
            leader=result.joined,
            limits=limits,
        )

    async def submit(
        self, caller: Caller, submission: Submission, sink: Sink | None, traceparent: str = ""
    ) -> Accepted | Refused:
        """As `accept`, for a caller that may be cancelled because its client left.

        The submission goes on without it, then the task's disconnect policy decides.
        """
        work = self._work.spawn(self.accept(caller, submission, sink, traceparent))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(self._abandoned)
            raise

    def begin(self, accepted: Accepted) -> None:
        """The acknowledgment is on its way to the client: let the text follow."""
        reader = accepted.reader
        if reader is None or not reader.open:
            return
        self._readers.release(reader)
        if accepted.repeated:  # another reader's route is in the record, and the log knows whose text it is
            self._readers.attach(reader)
            self._readers.watch(reader, accepted.pool)
        elif accepted.leader:
            self._readers.follow(reader, accepted.leader)
        elif accepted.cache:
            self._readers.read(reader)

    async def _ask_cache(
        self, directory: Directory, caller: Caller, submission: Submission, request: AcceptRequest
    ) -> tuple[str | None, LookupReply | None]:
        """Put what the cache knows into the request; "exact", "coalesced" or None, and what it said. Away is a miss."""
        task = request.task
        if self._twins is None or not submission.repeatable or task.cache_mode == CacheMode.CACHE_MODE_BYPASS:
            return None, None
        question = LookupRequest(
            scope=Scope(
                tenant=caller.tenant,
                model=submission.model,
                model_revision=directory.revision_of(submission.model),
            ),
            request=canonical_request(submission, task.sampling.max_tokens),
            task=task.id,
            priority_class=task.priority_class,
            lead_for=_duration(submission.deadline_s),
        )
        found = await self._twins.ask(question)
        if found is None:
            return None, None
        match found.WhichOneof("found"):
            case "answer":
                request.answer.CopyFrom(found.answer)
                return "exact", found
            case "leader" if found.leader != task.id:
                task.joined = found.leader
                return "coalesced", found
            case "fence":
                task.cache_ticket.CopyFrom(CacheTicket(key=found.key, fence=found.fence))
        return None, found

    async def _give_up_lead(self, found: LookupReply | None) -> None:
        """The task will not run: whoever asks next leads."""
        if self._store is None or found is None or not found.fence:
            return
        try:
            await self._store(StoreRequest(key=found.key, fence=found.fence), now() + 1.0)
        except ProblemError as away:
            log.debug("cache: %s; the lead ends by itself", away)

    async def _commit(self, request: AcceptRequest, deadline: float) -> router_pb2.Accepted | Problem:
        """What the router says once the task is committed."""
        if deadline <= now():
            return Problem(ErrorCode.EXPIRED, "the deadline passed before the task was admitted")
        try:
            reply = await self._accept(request, deadline)
        except ProblemError as away:
            if away.problem.code is not ErrorCode.UNAVAILABLE:
                return away.problem
            return Problem(
                ErrorCode.UNAVAILABLE,
                f"whether the task was accepted is unknown, the same key finds out ({away.problem.message})",
                retry_after_s=1.0,
            )
        if reply.HasField("accepted"):
            return reply.accepted
        rejected = reply.rejected
        wait = rejected.retry_after.ToTimedelta().total_seconds() if rejected.HasField("retry_after") else None
        return Problem(code_named(rejected.code), rejected.message, retry_after_s=wait)

    def _abandoned(self, work: "asyncio.Task[Accepted | Refused]") -> None:
        if work.cancelled() or work.exception():
            return
        result = work.result()
        if isinstance(result, Accepted):
            if result.reader is not None:
                self._readers.close(result.reader)
            self._departures.left(result.task)


def _refused(problem: Problem, limits: Limits = _UNLIMITED) -> Refused:
    metrics.gateway_refusals.labels(problem.code.value).inc()
    return Refused(problem, limits)


def _task(
    caller: Caller, submission: Submission, *, secret: bytes, key: str, max_tokens: int, prompt: int, at: float
) -> Task:
    task = Task(
        id=task_id(secret, caller.tenant, key),
        tenant=caller.tenant,
        api_key=caller.api_key,
        idempotency_key=key,
        body_hash=body_hash(submission),
        model=submission.model,
        priority_class=submission.priority_class,
        messages=submission.task_messages(),
        sampling=Sampling(
            max_tokens=max_tokens,
            temperature=submission.temperature,
            top_p=submission.top_p,
            seed=submission.seed,
            stop=submission.stop,
        ),
        on_disconnect=submission.task_on_disconnect(),
        cache_mode=submission.cache_mode,
        metadata=submission.metadata,
        estimated_prompt_tokens=prompt,
        estimated_output_tokens=max_tokens,
        retention=_duration(caller.retention_s),
    )
    task.submitted_at.FromNanoseconds(int(at * 1e9))
    task.deadline.FromNanoseconds(int((at + submission.deadline_s) * 1e9))
    return task


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
