"""A client's life on a WebSocket, by both implementations of the connection."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from millrace.router.v1.router_pb2 import AcceptReply, AcceptRequest
from services.gateway.settings import GatewaySettings
from services.tasklog.ports import Control
from tests.support.gateway_lab import OTHER_KEY, Lab, LabSocket, lab, seconds_pass
from tests.support.waiting import eventually


@pytest.fixture(params=["slim", "aiohttp"])
async def it(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with lab(GatewaySettings(websocket=request.param, max_in_flight=3)) as running:
        yield running


async def read_text(socket: LabSocket, task: str, text: str = "") -> str:
    """The text of a task to its end; each delta must continue the one before."""
    while (message := await socket.next())["t"] != "done":
        if message["t"] == "delta" and message["task"] == task:
            text += message["text"]
            assert message["offset"] == len(text.encode())
    assert message["offset"] == len(text.encode())
    return text


async def test_a_prompt_is_acknowledged_then_its_text_comes_then_its_end(it: Lab) -> None:
    """A prompt is acknowledged, then its text comes delta by delta with offsets, then exactly one end."""
    socket = await it.socket()
    ack = await socket.submit(key="k1", input="hello")
    assert (ack["key"], ack["state"], ack["cache"]) == ("k1", "queued", None)
    await it.answer(ack["task"], "Grüß", " Gott")
    first, second, done = [await socket.next() for _ in range(3)]
    assert (first["t"], first["text"], first["offset"]) == ("delta", "Grüß", 6)
    assert (second["text"], second["offset"]) == (" Gott", 11)
    assert (done["t"], done["outcome"], done["offset"]) == ("done", "completed", 11)
    assert done["usage"] == {"prompt_tokens": 3, "cached_tokens": 0, "completion_tokens": 2}
    assert done["timings"]["attempts"] == 1


async def test_a_token_that_overtakes_its_acknowledgment_arrives_after_it(it: Lab) -> None:
    """Text, and even the end, may be ready before the router answered; the client still sees `ack` first."""

    async def slow_router(request: AcceptRequest) -> AcceptReply:
        reply = await it.backend.claim(request)
        await it.answer(request.task.id, "early", " bird")
        await asyncio.sleep(0.05)  # the frames are there by now
        return reply

    it.backend.accepting = slow_router
    socket = await it.socket()
    await socket.send(t="submit", model="tiny", input="hi", key="k")
    kinds = [(await socket.next())["t"] for _ in range(4)]
    assert kinds == ["ack", "delta", "delta", "done"]


async def test_a_second_reader_and_a_late_one_see_the_same_bytes(it: Lab) -> None:
    """A second reader that joins in the middle, and one that comes after the end, see what the first saw."""
    first, second, late = [await it.socket() for _ in range(3)]
    task = (await first.submit())["task"]
    worker = it.worker(task)
    await worker.begin(5)
    await worker.write("one ")
    await second.send(t="resume", task=task)
    assert (await second.next())["text"] == "one "
    await worker.write("two ✓ ")
    await worker.write("three")
    await worker.end()
    assert await read_text(first, task) == "one two ✓ three"
    assert await read_text(second, task, "one ") == "one two ✓ three"
    await late.send(t="resume", task=task)
    assert await read_text(late, task) == "one two ✓ three"


async def test_a_reader_goes_on_from_its_offset(it: Lab) -> None:
    """A client that comes back with gen and offset gets the rest and nothing twice."""
    socket = await it.socket()
    task = (await socket.submit())["task"]
    worker = it.worker(task)
    await worker.begin(5)
    await worker.write("one ")
    delta = await socket.next()
    await socket.raw.close()
    await worker.write("two")
    again = await it.socket()
    await again.send(t="resume", task=task, gen=delta["gen"], offset=delta["offset"])
    assert (await again.next())["text"] == "two"
    await worker.write(" three")
    await worker.end()
    assert await read_text(again, task, "one two") == "one two three"


async def test_a_slow_reader_costs_bounded_memory_and_gets_every_byte(it: Lab) -> None:
    """A client that stops reading costs one high-water mark; when it reads again it gets every byte, compacted."""
    socket = await it.socket()
    task = (await socket.submit())["task"]
    (session,) = it.gateway.sessions.sessions
    connection = session._connection
    assert connection is not None
    socket.raw._reader._protocol.pause_reading()
    worker, piece, most = it.worker(task), "x" * 40_000, 0
    await worker.begin(5)
    left = 25  # pieces that follow once the kernel takes no more
    while left:
        await worker.write(piece)
        most = max(most, connection.buffered)
        left -= not connection.writable
    await worker.end()
    assert not connection.writable
    assert most < 64 * 1024 + 2 * 40_100
    socket.raw._reader._protocol.resume_reading()
    text = await read_text(socket, task)
    assert (len(text), set(text)) == (worker.offset, {"x"})


async def test_text_that_was_lost_is_discarded_by_name(it: Lab) -> None:
    """When a text begins anew the client is told `restarted` and then reads the new one from offset 0."""
    socket = await it.socket()
    task = (await socket.submit())["task"]
    worker = it.worker(task)
    await worker.begin(5)
    await worker.write("old text")
    assert (await socket.next())["text"] == "old text"
    await worker.begin(6)
    await worker.write("new")
    restarted, delta = await socket.next(), await socket.next()
    assert (restarted["t"], restarted["offset"]) == ("restarted", 0)
    assert (delta["text"], delta["offset"], delta["gen"]) == ("new", 3, restarted["gen"])


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("{", ""),
        ("[]", ""),
        ('{"t":"nonsense"}', "t"),
        ('{"t":"event","kind":"x","data":' + "[" * 100_000, ""),
        ('{"t":"submit","key":"k","model":"tiny"}', "input"),
        ('{"t":"submit","key":"k","model":"tiny","input":7}', "input"),
        ('{"t":"submit","key":"k","model":"tiny","input":""}', "input"),
        ('{"t":"submit","key":"k","model":"tiny","input":"x","temprature":1}', "temprature"),
        ('{"t":"submit","key":"k","model":"tiny","input":"x","temperature":3}', "temperature"),
        ('{"t":"submit","key":"k","model":"tiny","input":"x","max_tokens":"many"}', "max_tokens"),
        ('{"t":"submit","key":"k","model":"tiny","input":"x","max_tokens":2000}', "max_tokens"),
        ('{"t":"submit","key":"k","model":"tiny","input":"x","conversation":"c"}', "conversation"),
        ('{"t":"submit","key":"k","model":"tiny","input":[{"role":"robot","content":"x"}]}', "input[0].role"),
        ('{"t":"event","kind":"click"}', "t"),
        ('{"t":"resume","task":"aaaaaaaaaaaaaaaaaaaaaaaaaa","gen":"!"}', "gen"),
    ],
)
async def test_a_wrong_message_is_refused_by_field_and_the_connection_stays(it: Lab, message: str, field: str) -> None:
    """Malformed JSON, wrong types, unknown fields: a coded error that names the field; the connection goes on."""
    socket = await it.socket()
    await socket.raw.send_str(message)
    error = await socket.next()
    assert (error["t"], error["code"], error["retryable"]) == ("error", "invalid_request", False)
    assert error.get("field", "") == field
    assert field.partition("[")[0] in error["message"]
    if '"key"' in message:
        assert error["key"] == "k"
    await socket.send(t="ping")
    assert await socket.next() == {"t": "pong"}


async def test_a_frame_that_is_no_message_closes_with_a_code(it: Lab) -> None:
    """Too large: 1009; binary: 1003; not UTF-8: 1007."""
    large, binary, broken = [await it.socket(max_msg_size=0) for _ in range(3)]
    await large.raw.send_str("x" * 300_000)
    assert await large.closed() == 1009
    await binary.raw.send_bytes(b"x")
    assert await binary.closed() == 1003
    from aiohttp import WSMsgType

    await broken.raw.send_frame(b"\xff\xfe", WSMsgType.TEXT)
    assert await broken.closed() == 1007


async def test_a_wrong_key_closes_with_4401(it: Lab) -> None:
    """A connection without a key, or with a wrong one, is closed with 4401."""
    for headers in ({}, {"Authorization": "Bearer mr_wrong"}, {"Authorization": "Basic eDp5"}):
        socket = await it.socket(None, headers=headers)
        assert await socket.closed() == 4401


async def test_a_ticket_opens_one_connection(it: Lab) -> None:
    """A browser's ticket opens one connection and no second one."""
    async with it.client.post(f"{it.http}/v1/tickets", headers=it.auth()) as response:
        assert response.status == 201
        ticket = (await response.json())["ticket"]
    socket = await it.socket(None, query=f"?ticket={ticket}", headers={"Origin": it.http})
    assert (await socket.next())["t"] == "hello"
    second = await it.socket(None, query=f"?ticket={ticket}")
    assert await second.closed() == 4401


async def test_a_foreign_page_may_not_use_the_key(it: Lab) -> None:
    """A page of another origin is refused; no `Origin` means that it is not a browser."""
    socket = await it.socket(None, headers={"Origin": "https://evil.example", **it.auth()})
    assert await socket.closed() == 4401


async def test_a_foreign_task_is_unknown(it: Lab) -> None:
    """Another tenant's task, one that never was and one that cannot be are alike: `gone`, unknown."""
    mine, theirs = await it.socket(), await it.socket(OTHER_KEY)
    task = (await mine.submit())["task"]
    for name in (task, "a" * 26, "what?"):
        await theirs.send(t="resume", task=name)
        assert await theirs.next() == {"t": "gone", "task": name, "code": "unknown"}
        await theirs.send(t="cancel", task=name)
        assert (await theirs.next())["code"] == "unknown"
    assert not await it.log.cancel_wished(task)


async def test_a_task_whose_retention_is_over_is_gone(it: Lab) -> None:
    """A task that ended and whose answer is no longer kept: `gone`, expired."""
    socket = await it.socket()
    task = (await socket.submit())["task"]
    await it.control.ended(task)
    await socket.send(t="resume", task=task)
    assert await socket.until("gone") == {"t": "gone", "task": task, "code": "expired"}


async def test_cancel_is_written_before_it_is_told(it: Lab) -> None:
    """A cancel stands in Redis, then the pool's owner is told."""
    socket = await it.socket()
    task = (await socket.submit())["task"]
    await socket.send(t="cancel", task=task)
    await eventually(lambda: it.signals.cancels == [("tiny", task)])
    assert await it.log.cancel_wished(task)


async def test_seen_shortens_the_retention(it: Lab) -> None:
    """After `seen` the answer is kept for 30 s; before the end `seen` changes nothing."""
    kept: list[tuple[str, float]] = []

    async def expire(task: str, keep_s: float) -> None:
        kept.append((task, keep_s))

    it.log.expire = expire
    socket = await it.socket()
    task = (await socket.submit())["task"]
    await socket.send(t="seen", task=task)
    await socket.send(t="ping")
    await socket.until("pong")
    assert not kept
    await it.answer(task, "text")
    await socket.until("done")
    await socket.send(t="seen", task=task)
    await eventually(lambda: kept == [(task, 30.0)])


async def test_a_connection_reads_so_many_tasks_and_no_more(it: Lab) -> None:
    """Beyond `max_in_flight` unfinished tasks a connection is limited; an end makes room."""
    socket = await it.socket()
    tasks = [(await socket.submit(key=str(n)))["task"] for n in range(3)]
    await socket.send(t="submit", model="tiny", input="x", key="3")
    error = await socket.next()
    assert (error["code"], error["key"], error["retryable"]) == ("limited", "3", True)
    await it.answer(tasks[0], "x")
    await socket.until("done")
    await socket.submit(key="3")


async def test_resumes_that_come_together_are_bounded_too(it: Lab) -> None:
    """A resume counts from the moment it is asked, not from when Redis has answered; those refused name their task."""
    writer, socket = await it.socket(), await it.socket()
    tasks = [(await writer.submit())["task"] for _ in range(3)]
    await it.answer(tasks[0], "x")
    await writer.until("done")
    tasks.append((await writer.submit())["task"])
    gate, get = asyncio.Event(), it.control.get

    async def slow(task: str) -> Control | None:
        await gate.wait()
        return await get(task)

    it.control.get = slow  # type: ignore[method-assign]
    for task in (*tasks, "a" * 26):
        await socket.send(t="resume", task=task)
    refused = [await socket.next() for _ in range(2)]
    assert [(e["t"], e["code"], e["task"]) for e in refused] == [
        ("error", "limited", tasks[3]),
        ("error", "limited", "a" * 26),
    ]
    await socket.send(t="submit", model="tiny", input="x", key="k")
    assert (await socket.next())["code"] == "limited"
    gate.set()
    await socket.until("done")
    await socket.send(t="resume", task=tasks[3])  # the end made room
    await it.answer(tasks[3], "x")
    assert (await socket.until("done"))["task"] == tasks[3]
    await socket.send(t="resume", task="a" * 26)  # so did this end, and one that finds nothing holds no room
    await socket.until("gone")
    await socket.submit()


async def test_a_waiting_task_tells_its_place_only_on_change(it: Lab) -> None:
    """`status` comes with position and eta, on change and at most once per second."""
    socket = await it.socket()
    task = (await socket.submit())["task"]
    for position in (4, 4, 3):
        it.gateway.readers.on_status(TaskStatus(task=task, state="queued", position=position, eta_s=1.25))
    assert await socket.next() == {"t": "status", "task": task, "state": "queued", "position": 4, "eta_s": 1.2}
    seconds_pass(it, 1.1)
    it.gateway.readers.on_status(TaskStatus(task=task, state="running"))
    status = await socket.next()
    assert (status["state"], status["position"]) == ("running", None)


async def test_a_leaving_gateway_says_so_and_its_tasks_go_on(it: Lab) -> None:
    """`going_away` with a time, then close 1012; no disconnect policy fires."""
    socket = await it.socket()
    await socket.submit(on_disconnect="cancel")
    it.gateway.departures.leaving = True
    for session in tuple(it.gateway.sessions.sessions):
        session.go_away(1.5)
    assert (await socket.until("going_away"))["reconnect_in_s"] == 1.5
    assert await socket.closed() == 1012
    await eventually(lambda: not it.gateway.sessions.sessions)
    assert not it.signals.cancels


async def test_the_same_key_gives_the_same_task_and_reads_it_again(it: Lab) -> None:
    """The same key and body, on another connection: the same task, read from the beginning."""
    one, two = await it.socket(), await it.socket()
    task = (await one.submit(key="same"))["task"]
    worker = it.worker(task)
    await worker.begin(5)
    await worker.write("abc")
    assert (await two.submit(key="same"))["task"] == task
    assert (await two.next())["text"] == "abc"
    await two.send(t="submit", model="tiny", input="another body", key="same")
    error = await two.next()
    assert (error["code"], error["key"]) == ("idempotency_conflict", "same")


async def test_a_bug_is_answered_with_an_id_to_quote(it: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """An exception nobody planned becomes `internal` with an id that the log has too; the connection stays."""

    async def broken(_: AcceptRequest) -> AcceptReply:
        raise RuntimeError("boom")

    it.backend.accepting = broken
    socket = await it.socket()
    await socket.send(t="submit", model="tiny", input="x", key="k")
    error = await socket.next()
    assert (error["code"], error["key"]) == ("internal", "k")
    assert error["message"].rpartition(" ")[2] in caplog.text
