"""What people see when something is down: the rows of the table in README.md, on the real stack, through its public ports.

A component that must stay down is stopped where it stands (SIGSTOP): its supervisor would start a dead one again at once.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import pytest
import yaml

from services.chassis.errors import ErrorCode
from services.cli.stack.handle import Stack
from services.cli.stack.home import write_private
from services.client import Ack, Client, Delta, Done, Event, Restarted
from services.worker.core.simulated_text import simulated_text
from tests.chaos.verdict import usage_records
from tests.support.doors import Doors, Told
from tests.support.faults import full_disk, paused, read_only
from tests.support.waiting import eventually

MEASURED = "mr_" + "measured".ljust(32, "7")
LATE = "mr_" + "late".ljust(32, "7")
BURST = 10
TAKEOVER_S, WORKER_LOST_S = 3.0, 4.0
_numbers = itertools.count()


def prompt(tokens: int, rate: float = 50.0, **wishes: str) -> str:
    """Something that was never asked before, of which the simulator says so much so fast."""
    more = "".join(f" {name}={value}" for name, value in wishes.items())
    return f"question {next(_numbers)} of {time.time_ns()} [[sim tokens={tokens} rate={rate}{more}]]"


def said_to(asked: str, tokens: int) -> str:
    """What the simulator says to such a prompt."""
    return simulated_text(f"user: {asked}\n", tokens)


class Reading:
    """An answer that is read in the background, through any break, and when each piece of it came."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self.task = self.text = ""
        self.ack: Ack | None = None
        self.done: Done | None = None
        self.heard_at: list[float] = []  # text and end
        self.job = asyncio.create_task(self._read(events))

    async def _read(self, events: AsyncIterator[Event]) -> None:
        async for event in events:
            match event:
                case Ack():
                    self.ack, self.task = event, event.task
                case Delta(text=text):
                    self.text += text
                    self.heard_at.append(time.monotonic())
                case Restarted():
                    self.text = ""
                case Done():
                    self.done = event
                    self.heard_at.append(time.monotonic())

    async def accepted(self) -> None:
        """Wait for the acknowledgment."""
        await eventually(lambda: self.ack or self.job.done(), within_s=30)
        assert self.ack, self.job.exception()

    async def begun(self) -> None:
        """Wait for the first text."""
        await eventually(lambda: self.text or self.job.done(), within_s=30)
        assert self.text, self.job
        assert not self.done

    async def finished(self) -> str:
        """Wait for the end; the whole answer."""
        async with asyncio.timeout(40):
            await self.job
        assert self.done
        assert self.done.outcome == "completed", self.done
        return self.text

    def silence_s(self, since: float) -> float:
        """The longest time without text."""
        times = [since, *(at for at in self.heard_at if at > since)]
        return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


class Person:
    """Somebody with the local key who knows some of the gateways."""

    def __init__(self, stack: Stack, gateways: Sequence[int]) -> None:
        self.client = Client([f"http://{stack.gateways[number].http}" for number in gateways], stack.key)
        self.readings: list[Reading] = []

    def ask(self, asked: str, model: str = "sim", **options: Any) -> Reading:
        """Submit and read."""
        return self._reading(self.client.stream(asked, model=model, **options))

    def watch(self, task: str) -> Reading:
        """Read from the start."""
        return self._reading(self.client.watch(task))

    def _reading(self, events: AsyncIterator[Event]) -> Reading:
        self.readings.append(Reading(events))
        return self.readings[-1]

    async def leave(self) -> None:
        """Read nothing any more."""
        for reading in self.readings:
            reading.job.cancel()
        await asyncio.gather(*(reading.job for reading in self.readings), return_exceptions=True)
        await self.client.close()


@pytest.fixture(autouse=True)
def restored(stack: Stack) -> Iterator[None]:
    """All is as it was before the next test."""
    yield
    stack.wait_ready()


@pytest.fixture
async def person(stack: Stack) -> AsyncIterator[Person]:
    """Knows both gateways, the first one first."""
    somebody = Person(stack, (0, 1))
    yield somebody
    await somebody.leave()


@pytest.fixture
async def neighbour(stack: Stack) -> AsyncIterator[Person]:
    """Knows the second gateway only."""
    somebody = Person(stack, (1,))
    yield somebody
    await somebody.leave()


@pytest.fixture
def doors(stack: Stack) -> Doors:
    return Doors(stack.gateways[0], stack.key)


def manifest(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "millrace.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def tenant(name: str, key: str, **spec: Any) -> list[dict[str, Any]]:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"key": key}}
    return [secret, manifest("Tenant", name, keys=[{"name": name, "secretRef": {"name": name}}], **spec)]


@contextlib.contextmanager
def configured(stack: Stack, *documents: dict[str, Any]) -> Iterator[None]:
    """More manifests for the stack during the block."""
    file = stack.home.manifests / "degradation.yaml"
    write_private(file, yaml.safe_dump_all(documents).encode())
    try:
        yield
    finally:
        file.unlink()


async def models(stack: Stack, gateway: int, key: str) -> list[str]:
    """What this key may use at that gateway; nothing for an unknown key."""
    async with httpx.AsyncClient(base_url=f"http://{stack.gateways[gateway].http}") as client:
        answer = await client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    return [model["id"] for model in answer.json().get("data", ())]


async def until_known(stack: Stack, key: str, model: str = "sim") -> None:
    """Wait until every gateway has the configuration with this key and model."""
    for gateway in range(len(stack.gateways)):

        async def known(gateway: int = gateway) -> bool:
            return model in await models(stack, gateway, key)

        await eventually(known, within_s=20, every_s=0.05)


async def until_accepted(doors: Doors, key: str, asked: str) -> Told:
    """Try the same key again, as a client that was refused does."""
    async with asyncio.timeout(30):
        while (told := await doors.ask("tasks", key=key, input=asked)).code:
            assert told.code == ErrorCode.UNAVAILABLE
            await asyncio.sleep(0.1)
    return told


async def test_a_gateway_down(stack: Stack, person: Person) -> None:
    """Its connections drop; clients resume at another one from their offset."""
    asked = prompt(100)
    reading = person.ask(asked)
    await reading.begun()
    stack.kill("gateway-1")
    assert await reading.finished() == said_to(asked, 100)
    assert person.client._address == f"http://{stack.gateways[1].http}"


@pytest.mark.parametrize("down", ["gateway-1", "dispatcher-1", "dispatcher-2", "worker-1"])
async def test_all_but_one_gateway_dispatcher_or_worker_down(
    stack: Stack, person: Person, neighbour: Person, down: str
) -> None:
    """Nothing, after at most 3 s; the answers of a lost worker go on after at most 4 s."""
    model, long, after_s = ("tiny", 400, WORKER_LOST_S) if down == "worker-1" else ("sim", 150, TAKEOVER_S)
    running = [neighbour.ask(prompt(150), model, max_tokens=long, temperature=1) for _ in range(4)]
    for reading in (*running, person.ask(prompt(500))):  # the last one is read at the first gateway
        await reading.begun()
    with paused(stack, down):
        began = time.monotonic()
        new = [neighbour.ask(prompt(10), model, max_tokens=10, temperature=1) for _ in range(4)]
        for reading in (*running, *new):
            assert await reading.finished()
    assert max(reading.silence_s(began) for reading in (*running, *new)) <= after_s


async def test_ratelimiter_down(stack: Stack, person: Person) -> None:
    """Nothing; each gateway limits at its share of the rate."""
    limit = {"rate": BURST, "periodSeconds": 600, "burst": BURST}
    policy = manifest("LimitPolicy", "measured", perKey={"requests": limit})
    with contextlib.ExitStack() as down:
        down.enter_context(configured(stack, *tenant("measured", MEASURED, limitPolicy="measured"), policy))
        await until_known(stack, MEASURED)
        down.enter_context(paused(stack, "ratelimiter"))
        asked = prompt(5)
        assert await person.ask(asked).finished() == said_to(asked, 5)
        for gateway in stack.gateways:
            asking = Doors(gateway, MEASURED)
            told = await asyncio.gather(*(asking.ask("tasks", input=prompt(1)) for _ in range(BURST)))
            codes = [one.code for one in told]
            assert 3 <= codes.count("") <= BURST / 2, codes  # a gateway that died a moment ago still has a share
            assert set(codes) == {"", ErrorCode.LIMITED}


async def test_cache_down(stack: Stack, person: Person, neighbour: Person) -> None:
    """Answers come from the engine; identical prompts are joined only within a gateway."""
    asked = prompt(30)
    with paused(stack, "cache"):
        crowd = [person.ask(asked, temperature=0) for _ in range(4)]
        apart = neighbour.ask(asked, temperature=0)
        assert {await reading.finished() for reading in (*crowd, apart)} == {said_to(asked, 30)}
        assert apart.ack
        assert apart.ack.cache is None
        assert {reading.ack.cache for reading in crowd if reading.ack} == {None, "coalesced"}

    async def joined() -> bool:
        asked = prompt(30)
        first = person.ask(asked, temperature=0)
        await first.begun()
        second = neighbour.ask(asked, temperature=0)
        assert await first.finished() == await second.finished() == said_to(asked, 30)
        return second.ack is not None and second.ack.cache == "coalesced"

    async with asyncio.timeout(20):
        while not await joined():
            pass


async def test_router_down(stack: Stack, person: Person, doors: Doors) -> None:
    """New prompts are refused (`unavailable`, retry with the same key); running and queued ones go on."""
    asked, waits, refused = prompt(200), prompt(5), prompt(5)
    running = person.ask(asked)
    await running.begun()
    with contextlib.ExitStack() as down:
        with paused(stack, "dispatcher"):
            queued = person.ask(waits)
            await queued.accepted()
            down.enter_context(paused(stack, "router"))
        told = await doors.ask("tasks", key=refused, input=refused)
        assert told.code == ErrorCode.UNAVAILABLE
        assert told.retry_after_s
        assert await running.finished() == said_to(asked, 200)
        assert await queued.finished() == said_to(waits, 5)
    task = (await until_accepted(doors, refused, refused)).task
    assert await person.watch(task).finished() == said_to(refused, 5)


async def test_dispatchers_down(stack: Stack, person: Person) -> None:
    """Prompts are accepted and wait; running answers go on."""
    asked, waits = prompt(100), prompt(5)
    running = person.ask(asked)
    await running.begun()
    with paused(stack, "dispatcher"):
        queued = person.ask(waits)
        await queued.accepted()
        assert await running.finished() == said_to(asked, 100)
        assert (await person.client.get(queued.task)).state == "queued"
    assert await queued.finished() == said_to(waits, 5)


async def test_workers_of_a_pool_down(stack: Stack, person: Person) -> None:
    """Prompts are accepted and wait, or go to the route's fallback pool."""
    waits = prompt(5)
    with contextlib.ExitStack() as down:
        down.enter_context(
            configured(stack, manifest("ModelRoute", "spare", targets=[{"pool": "sim"}], fallback="tiny"))
        )
        await until_known(stack, stack.key, "spare")
        down.enter_context(paused(stack, "worker-sim-1"))
        queued = person.ask(waits)
        await queued.accepted()
        tries: list[Reading] = []
        async with asyncio.timeout(20):  # until the router has heard that the pool has no workers
            while not any(reading.done for reading in tries):
                tries.append(person.ask(prompt(5), "spare", max_tokens=5))
                await asyncio.sleep(0.2)
        assert (await person.client.get(queued.task)).state == "queued"
    assert await queued.finished() == said_to(waits, 5)
    await asyncio.gather(*(reading.finished() for reading in tries))


async def test_triton_down(stack: Stack, person: Person) -> None:
    """Answers under way wait for its restart or continue elsewhere; after three failures they end `engine_failed`.

    One Triton runs here, so they wait. An engine that fails three times is the simulator, which was asked to.
    """
    running = [person.ask(prompt(1), "tiny", max_tokens=400, temperature=1) for _ in range(4)]
    for reading in running:
        await reading.begun()
    stack.kill("triton")
    failed = person.ask(prompt(1, fault="retry@0"))
    await eventually(lambda: failed.done, within_s=30)
    assert failed.done
    assert failed.done.error
    assert (failed.done.outcome, failed.done.error.code) == ("failed", ErrorCode.ENGINE_FAILED)
    assert failed.done.timings.attempts == 3
    for reading in running:
        assert await reading.finished() == await person.watch(reading.task).finished()
    assert max(reading.done.timings.attempts for reading in running if reading.done) > 1


async def test_kafka_down(stack: Stack, person: Person, doors: Doors) -> None:
    """New prompts are refused (`unavailable`); running answers go on to their end, usage records wait for it."""
    asked, refused = prompt(100), prompt(5)
    running = person.ask(asked)
    await running.begun()
    with paused(stack, "kafka"):
        told = await doors.ask("tasks", key=refused, input=refused)
        assert told.code == ErrorCode.UNAVAILABLE
        assert await running.finished() == said_to(asked, 100)
    task = (await until_accepted(doors, refused, refused)).task
    assert await person.watch(task).finished() == said_to(refused, 5)
    bootstrap = stack.status.addresses("kafka", "port")[0]

    async def recorded() -> bool:
        return {running.task, task} <= set(await asyncio.to_thread(usage_records, bootstrap))

    await eventually(recorded, within_s=20, every_s=0.1)


async def test_redis_down(stack: Stack, person: Person, doors: Doors) -> None:
    """New prompts are refused; running answers pause and go on from where they were."""
    asked, refused = prompt(200), prompt(5)
    running = person.ask(asked)
    await running.begun()
    with paused(stack, "redis"):
        told = await doors.ask("tasks", key=refused, input=refused)
        assert told.code == ErrorCode.UNAVAILABLE
        read, at = running.text, time.monotonic()
        await eventually(lambda: time.monotonic() > at + 0.5)
        assert running.text == read != ""
    assert await running.finished() == said_to(asked, 200)
    task = (await until_accepted(doors, refused, refused)).task
    assert await person.watch(task).finished() == said_to(refused, 5)


async def test_configuration_publisher_down(stack: Stack, person: Person) -> None:
    """Nothing; services keep the last configuration, and changes wait for it."""
    asked = prompt(75)
    with contextlib.ExitStack() as down:
        with paused(stack, "publisher"):
            down.enter_context(configured(stack, *tenant("late", LATE)))
            assert await person.ask(asked).finished() == said_to(asked, 75)
            assert not await models(stack, 0, LATE)
        await until_known(stack, LATE)


@pytest.mark.parametrize("full", [read_only, full_disk], ids=["redis", "kafka"])
async def test_disk_full(stack: Stack, person: Person, doors: Doors, full: Any) -> None:
    """New prompts are refused; nothing that was accepted is lost.

    Redis refuses every write, as it does when it cannot write its file. Kafka really cannot: a limit of its process makes
    each write to a file fail, so it gives up, and so does every broker that is started in its place.
    """
    asked, waits, refused = prompt(200), prompt(5), prompt(5)
    running = person.ask(asked)
    await running.begun()
    with contextlib.ExitStack() as down:
        with paused(stack, "dispatcher"):
            queued = person.ask(waits)
            await queued.accepted()
            down.enter_context(full(stack))
        began = time.monotonic()
        while time.monotonic() < began + TAKEOVER_S:  # leases end meanwhile
            told = await doors.ask("tasks", key=refused, input=refused)
            assert told.code == ErrorCode.UNAVAILABLE
            await asyncio.sleep(0.1)
    assert await running.finished() == said_to(asked, 200)
    assert await queued.finished() == said_to(waits, 5)
    task = (await until_accepted(doors, refused, refused)).task
    assert await person.watch(task).finished() == said_to(refused, 5)
