"""The Python client against gateways that break: no byte lost, none doubled, on any transport."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from services.client import (
    Ack,
    Client,
    Delta,
    Done,
    Event,
    MillraceError,
    Patience,
    Restarted,
    Status,
    SyncClient,
    TaskEndedError,
)
from services.client.client import Way
from services.client.errors import (
    LimitedError,
    UnauthenticatedError,
    UnavailableError,
    UnknownModelError,
    UnknownTaskError,
)
from tests.support.fake_gateway import KEY, FakeGateway, FakePlatform, ServedGateway, answer_of, error
from tests.support.waiting import eventually

QUICK = Patience(tries=6, first_s=0.002, longest_s=0.02)
PROMPT = "a prompt"
TEXT = "".join(answer_of(PROMPT))


@dataclass
class Replicas:
    """Two gateways of one platform, and the client that knows both."""

    platform: FakePlatform
    gateways: list[FakeGateway]
    way: Way
    clients: list[Client] = field(default_factory=list)

    def addresses(self) -> list[str]:
        return [gateway.grpc_url if self.way == "grpc" else gateway.url for gateway in self.gateways]

    def client(self, key: str = KEY, **options: object) -> Client:
        self.clients.append(Client(self.addresses(), key, transport=self.way, patience=QUICK, **options))  # type: ignore[arg-type]
        return self.clients[-1]


@pytest.fixture(params=["ws", "sse", "grpc"])
async def replicas(request: pytest.FixtureRequest) -> AsyncIterator[Replicas]:
    platform = FakePlatform(piece_s=0.001)
    async with FakeGateway(platform) as first, FakeGateway(platform) as second:
        both = Replicas(platform, [first, second], request.param)
        yield both
        for client in both.clients:
            await client.close()
        await platform.stop()


class Reading:
    """What a reader ends up with, and the rules that its events keep."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.text = ""

    async def of(self, events: AsyncIterator[Event]) -> "Reading":
        async for event in events:
            self.events.append(event)
            match event:
                case Delta(offset=offset, text=text):
                    self.text += text
                    assert len(self.text.encode()) == offset
                case Restarted():
                    self.text = ""
        return self

    @property
    def done(self) -> Done:
        assert [type(event) for event in self.events].count(Done) == 1
        last = self.events[-1]
        assert isinstance(last, Done)
        return last


async def test_a_stream_tells_a_task_from_acknowledgment_to_end(replicas: Replicas) -> None:
    """First `Ack`, then where it stands, the text in pieces, one `Done` with usage and timings."""
    replicas.platform.queue_s = 0.2
    reading = await Reading().of(replicas.client().stream(PROMPT, max_tokens=24, temperature=0.5, stop=["x"]))
    first, second = reading.events[:2]
    assert isinstance(first, Ack)
    assert isinstance(second, Status)
    assert (second.position, second.eta_s) == (3, 1.5)
    assert reading.text == TEXT
    assert reading.done.outcome == "completed"
    assert reading.done.usage.cached_tokens == 2
    assert reading.done.timings.ttft_s == pytest.approx(0.085)


async def test_a_drop_at_every_point_loses_and_doubles_nothing(replicas: Replicas) -> None:
    """The connection breaks before the acknowledgment, at it, and after each object; the text is whole each time."""
    for cut in range(30):
        replicas.gateways[0].cuts = [cut]
        client = replicas.client()
        reading = await Reading().of(client.stream(f"prompt {cut}"))
        assert reading.text == "".join(answer_of(f"prompt {cut}")), cut
        assert [type(event) for event in reading.events].count(Ack) == 1
        assert reading.done.outcome == "completed"
    assert len(replicas.platform.tasks) == 30


async def test_a_connection_that_breaks_after_every_object_still_gets_through(replicas: Replicas) -> None:
    """Each try that brings something new counts as progress, so patience does not end."""
    replicas.platform.piece_s = 0.01
    for gateway in replicas.gateways:
        gateway.cuts = [3 if replicas.way == "ws" else 2] * 40
    reading = await Reading().of(replicas.client().stream(PROMPT))
    assert reading.text == TEXT
    assert sum(gateway.connections for gateway in replicas.gateways) > 4


async def test_a_lost_acknowledgment_runs_the_prompt_once(replicas: Replicas) -> None:
    """The retry carries the same key and finds the same task."""
    replicas.gateways[0].cuts = [1 if replicas.way == "ws" else 0]
    reading = await Reading().of(replicas.client().stream(PROMPT))
    assert reading.text == TEXT
    assert len(replicas.platform.tasks) == 1


async def test_a_gateway_that_dies_is_left_for_the_other(replicas: Replicas) -> None:
    """The first address stops answering for good in mid-answer; the second goes on from the cursor."""
    replicas.platform.piece_s = 0.01
    client, reading = replicas.client(), Reading()
    stopped = False

    async def stop_midway(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        nonlocal stopped
        async for event in events:
            yield event
            if isinstance(event, Delta) and not stopped:
                stopped = True
                await replicas.gateways[0].stop()

    await reading.of(stop_midway(client.stream(PROMPT)))
    assert reading.text == TEXT
    await replicas.gateways[0].start()


async def test_a_text_that_began_anew_is_said_so_and_read_from_its_start(replicas: Replicas) -> None:
    """`Restarted` comes before the new text, and what is read after it is the whole new text."""
    replicas.platform.restart_at = 5
    replicas.platform.piece_s = 0.005
    reading = await Reading().of(replicas.client().stream(PROMPT))
    assert Restarted in map(type, reading.events)
    assert reading.text == "".join(answer_of(PROMPT + " again"))


async def test_a_watch_goes_on_from_any_cursor(replicas: Replicas) -> None:
    """From 0 and from the cursor of any delta a second reader gets exactly the rest."""
    client = replicas.client()
    first = await Reading().of(client.stream(PROMPT))
    task = first.done.task
    cursors = [("", 0)] + [(event.gen, event.offset) for event in first.events if isinstance(event, Delta)]
    for gen, offset in cursors:
        rest = "".join([event.text async for event in client.watch(task, gen, offset) if isinstance(event, Delta)])
        assert rest.encode() == TEXT.encode()[offset:]


async def test_submit_get_and_cancel_are_single_questions(replicas: Replicas) -> None:
    """A submitted task runs without a reader, shows its text so far, and ends when its end is wished."""
    replicas.platform.piece_s = 0.02
    client = replicas.client()
    ack = await client.submit(PROMPT)
    while not (view := await client.get(ack.task)).text:
        await asyncio.sleep(0.01)
    assert view.state == "running"
    assert TEXT.startswith(view.text)
    await client.cancel(ack.task)
    reading = await Reading().of(client.watch(ack.task))
    assert reading.done.outcome == "cancelled"


@pytest.mark.parametrize(("prompt", "code"), [("fail", "engine_failed"), ("expire", "expired")])
async def test_an_end_without_an_answer_is_an_error_with_the_text_so_far(
    replicas: Replicas, prompt: str, code: str
) -> None:
    """A stream ends in `Done` with its outcome; `generate` raises with code and text."""
    client = replicas.client()
    with pytest.raises(TaskEndedError) as ended:
        await client.generate(prompt)
    assert ended.value.code == code
    assert ended.value.text == "".join(answer_of(prompt)[:3])


async def test_a_whole_answer_is_one_call(replicas: Replicas) -> None:
    """`generate` returns text and end; a chat is a list of turns."""
    answer = await replicas.client().generate([{"role": "user", "content": PROMPT}])
    assert (answer.text, answer.done.outcome) == (TEXT, "completed")


async def test_refusals_are_typed_and_not_retried(replicas: Replicas) -> None:
    """What no retry mends is raised at once as the class of its code."""
    with pytest.raises(UnknownModelError) as refused:
        await replicas.client().generate(PROMPT, model="none")
    assert "none" in refused.value.message
    with pytest.raises(UnknownTaskError):
        await replicas.client().get("nosuchtask")
    with pytest.raises(UnknownTaskError):
        await Reading().of(replicas.client().watch("nosuchtask"))
    with pytest.raises(UnauthenticatedError):
        await replicas.client(key="mr_wrong").generate(PROMPT)
    assert replicas.platform.submits == 1


async def test_a_limit_is_waited_for_as_long_as_it_says(replicas: Replicas) -> None:
    """A retryable refusal is tried again after its `retry_after_s`; one that takes too long is raised."""
    replicas.platform.refuse = error("limited", "requests per second", retryable=True, retry_after_s=0.1)
    replicas.platform.refusals = 2
    started = asyncio.get_running_loop().time()
    assert (await replicas.client().generate(PROMPT)).text == TEXT
    assert asyncio.get_running_loop().time() - started >= 0.2
    replicas.platform.refuse = error("limited", "tokens per day", retryable=True, retry_after_s=3600)
    replicas.platform.refusals = 1
    with pytest.raises(LimitedError) as refused:
        await replicas.client().generate("another")
    assert refused.value.retry_after_s == 3600


async def test_patience_ends() -> None:
    """No gateway at all: a bounded number of tries, then UnavailableError that names the last reason."""
    client = Client("http://127.0.0.1:9", KEY, patience=Patience(tries=3, first_s=0.001, longest_s=0.01))
    with pytest.raises(UnavailableError, match="3 tries"):
        await client.generate(PROMPT)
    await client.close()


async def test_a_gateway_that_leaves_is_followed_by_a_reconnect() -> None:
    """`going_away` is no error: the reader goes on at the other gateway after the time it was told."""
    platform = FakePlatform(piece_s=0.01)
    async with FakeGateway(platform) as first, FakeGateway(platform) as second:
        client, reading, left = Client([first.url, second.url], KEY, patience=QUICK), Reading(), False

        async def leave_midway(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
            nonlocal left
            async for event in events:
                yield event
                if isinstance(event, Delta) and not left:
                    left = True
                    await first.leave()

        await reading.of(leave_midway(client.stream(PROMPT)))
        assert reading.text == TEXT
        assert second.connections == 1
        await client.close()


async def test_a_reader_that_stops_early_closes_its_connection(replicas: Replicas) -> None:
    """Closing a stream leaves no task and no connection behind."""
    replicas.platform.piece_s = 0.02
    client = replicas.client()
    before = len(asyncio.all_tasks())
    stream = client.stream(PROMPT)
    async for event in stream:
        if isinstance(event, Delta):
            break
    await stream.aclose()
    await client.close()
    await eventually(lambda: not any(gateway.sockets for gateway in replicas.gateways))
    assert len(asyncio.all_tasks()) <= before + 4


def test_the_same_client_without_an_event_loop() -> None:
    """`SyncClient` streams, generates, raises the same errors, and ends its thread."""
    with ServedGateway(FakePlatform(piece_s=0.001)) as served, SyncClient(served.gateway.url, KEY) as client:
        events = list(client.stream(PROMPT))
        assert "".join(event.text for event in events if isinstance(event, Delta)) == TEXT
        assert client.generate(PROMPT).text == TEXT
        with pytest.raises(MillraceError, match="unknown_task"):
            client.get("nosuchtask")
        task = client.submit("another").task
        assert [event for event in client.watch(task) if isinstance(event, Done)]
        assert client.cancel(task) == "completed"
    assert not [thread for thread in threading.enumerate() if thread.name == "millrace client"]
