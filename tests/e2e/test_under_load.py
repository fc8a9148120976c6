"""What happens to pods under load, and what must not be noticed of it."""

import asyncio
import contextlib
import os
import random
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.e2e.crowd import Crowd, crowd
from tests.e2e.installation import CHART, Installation, scenario

STREAMS = 200
FEW = 8
LONG = {"tokens": 300, "rate": 4}  # longer than the fault
SLEEPERS = 10
ROUNDS = int(os.environ.get("ROUNDS", "2"))
KILLS = int(os.environ.get("KILLS", "6"))
SEED = int(os.environ.get("SEED", "1"))


@contextlib.contextmanager
def pools(installed: Installation, *names: str, slots: int, **scaling: Any) -> Iterator[None]:
    """Pools of simulators with their routes, for one test; deleted, they drain and nothing of them is left."""
    spec = {
        "replicas": scaling["minReplicas"],
        "concurrency": {"slots": slots},
        "engine": {"kind": "Simulator", "simulator": {"tokensPerSecond": 50}},
        "scaling": scaling,
        "drain": {"deadlineSeconds": 180},
        "worker": {"resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}},
    }
    items: list[dict[str, Any]] = []
    for name in names:
        head = {"apiVersion": "millrace.dev/v1alpha1", "metadata": {"name": name}}
        model = {"name": name, "contextTokens": 32768}
        route = {"targets": [{"pool": name}], "tokens": {"max": 16384}}
        items += [{**head, "kind": "WorkerPool", "spec": {**spec, "model": model}}]
        items += [{**head, "kind": "ModelRoute", "spec": route}]
    installed.kubectl("apply", "-f", "-", manifest={"apiVersion": "v1", "kind": "List", "items": items})
    try:
        installed.kubectl("wait", "--for=condition=SignalFresh", "wp", *names, "--timeout=60s")
        yield
    finally:
        installed.kubectl("delete", "mr,wp", *names, "--timeout=240s", timeout_s=250)
    kinds = "deployments,services,poddisruptionbudgets,configmaps,pods"
    ours = ("-l", f"millrace.dev/pool in ({','.join(names)})")
    installed.until(lambda: not installed.get(kinds, *ours)["items"], 60)  # the garbage collector takes them


@pytest.fixture(scope="module")
def four(installed: Installation) -> Iterator[str]:
    """A pool of four workers with 50 slots each, whose number people set."""
    with pools(installed, "four", slots=50, mode="Manual", minReplicas=0, maxReplicas=4):
        yield "four"


@contextlib.asynccontextmanager
async def two_hundred(installed: Installation, pool: str, event: str) -> AsyncIterator[Crowd]:
    """As many streams, a minute each, on four workers. Whatever happens in the block: none of them is killed."""
    installed.kubectl("scale", f"wp/{pool}", "--replicas=4")
    installed.until(lambda: installed.field(f"wp/{pool}", ".status.readyReplicas") == "4", 90)
    async with crowd(installed, event, STREAMS, model=pool, tokens=300, rate=5) as readers:
        workers = {one["metadata"]["name"] for one in installed.pods(pool)}
        yield readers
    gone = workers - {one["metadata"]["name"] for one in installed.pods(pool)}
    print(f"\n{event}: {len(gone)} of {len(workers)} workers left under {STREAMS} streams, {readers.killed} killed")
    assert gone
    assert readers.wrong == []
    assert readers.killed == 0


@scenario("scale-in")
async def test_a_scale_in_kills_no_generation(installed: Installation, four: str) -> None:
    """Two of four workers leave while all four are full."""
    async with two_hundred(installed, four, "scale-in"):
        await asyncio.to_thread(installed.kubectl, "scale", f"wp/{four}", "--replicas=2")
        await asyncio.to_thread(installed.until, lambda: len(installed.pods(four)) == 2, 120)


@scenario("rollout")
async def test_a_rollout_of_workers_kills_no_generation(installed: Installation, four: str) -> None:
    """A changed spec replaces all four."""
    deadline = int(installed.field(f"wp/{four}", ".spec.drain.deadlineSeconds")) - 1
    changed = f'{{"spec":{{"drain":{{"deadlineSeconds":{deadline}}}}}}}'
    async with two_hundred(installed, four, "rollout"):
        await asyncio.to_thread(installed.kubectl, "patch", "wp", four, "--type=merge", "-p", changed)
        await asyncio.sleep(3)
        roll = ("rollout", "status", f"deployment/pool-{four}", "--timeout=180s")
        await asyncio.to_thread(installed.kubectl, *roll, timeout_s=200)


@scenario("node-drain")
async def test_a_drained_node_kills_no_generation(installed: Installation, four: str) -> None:
    """`kubectl drain` evicts the workers one by one; where there is one node only, the new ones come up on it again."""
    node = installed.get("pods", "-l", f"millrace.dev/pool={four}")["items"][0]["spec"]["nodeName"]
    drain = ("drain", node, f"--pod-selector=millrace.dev/pool={four}", "--delete-emptydir-data", "--timeout=240s")
    try:
        async with two_hundred(installed, four, "node-drain"):
            draining = asyncio.create_task(asyncio.to_thread(installed.kubectl, *drain, timeout_s=250))
            if len(installed.get("nodes")["items"]) == 1:
                cordoned = lambda: installed.field(f"node/{node}", ".spec.unschedulable") == "true"  # noqa: E731
                await asyncio.to_thread(installed.until, cordoned, 20)
                await asyncio.to_thread(installed.kubectl, "uncordon", node)
            await draining
    finally:
        installed.kubectl("uncordon", node)


@contextlib.contextmanager
def orders(installed: Installation) -> Iterator[dict[str, list[tuple[float, int]]]]:
    """(monotonic s, replicas) of each pool as a watcher is told, from now on."""
    seen: dict[str, list[tuple[float, int]]] = {}

    def heard(line: str) -> None:
        name, replicas = line.split()
        seen.setdefault(name, []).append((time.monotonic(), int(replicas)))

    watch = ("get", "wp", "--watch", "-o", 'jsonpath={.metadata.name} {.spec.replicas}{"\\n"}')
    with installed.following(*watch, line=heard):
        installed.until(lambda: seen, 20)
        yield seen


@scenario("from-zero")
def test_the_first_task_of_a_pool_at_zero_orders_a_worker_within_half_a_second(installed: Installation) -> None:
    """From before the submission to the new number at a watcher. A pool is idle a minute after its last arrival: so many.

    One after the other: on two cores the start of a pod is in the way of everything else.
    """
    waits: list[float] = []
    names = [f"sleeper-{number}" for number in range(SLEEPERS)]
    scaling = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 0, "hold": {"mode": "Fixed", "seconds": 1}}
    with pools(installed, *names, slots=8, **scaling), orders(installed) as seen, installed.client() as client:
        for name in names * ROUNDS:
            installed.until(lambda name=name: seen[name][-1][1] == 0 and not installed.pods(name), 120)
            began = time.monotonic()
            task = client.submit("wake up", model=name, max_tokens=4, cache="bypass")
            installed.until(lambda name=name: seen[name][-1][1] == 1, 20)
            waits.append(seen[name][-1][0] - began)
            installed.until(lambda name=name: installed.field(f"wp/{name}", ".status.readyReplicas") == "1", 60)
            client.cancel(task.task)
    print(f"\nfirst task to order: median {statistics.median(waits):.3f} s; {[round(wait, 3) for wait in waits]}")
    assert max(waits) <= 0.5


@contextlib.contextmanager
def standby(installed: Installation) -> Iterator[None]:
    """Two operators, one of which leads."""
    deployment = "deployment/millrace-operator"
    installed.kubectl("scale", deployment, "--replicas=2")
    try:
        installed.kubectl("rollout", "status", deployment, "--timeout=120s", timeout_s=130)
        yield
    finally:
        installed.kubectl("scale", deployment, "--replicas=1")
        installed.until(lambda: len(installed.operators()) == 1 and installed.operator_leads(), 90)


@scenario("operator-killed")
async def test_a_standby_follows_an_operator_that_is_killed_under_load(installed: Installation) -> None:
    """Answers and their workers are as if nothing had happened; another one leads, and wakes a pool that is at zero."""
    slots, scaling = 4, {"minReplicas": 0, "maxReplicas": 4, "hold": {"mode": "Fixed", "seconds": 300}}
    with (
        standby(installed),
        pools(installed, "steady", "asleep", slots=slots, **scaling),
        orders(installed) as seen,
        installed.client() as client,
    ):
        async with crowd(installed, "steady", FEW, model="steady", **LONG) as readers:
            leader, earlier = await asyncio.to_thread(installed.leader), len(seen["steady"])
            killed = ("delete", "pod", leader, "--grace-period=0", "--force")
            await asyncio.to_thread(installed.kubectl, *killed)
            seconds = await asyncio.to_thread(installed.until, lambda: installed.leader() not in {"", leader}, 60)
            woken = await asyncio.to_thread(client.generate, "wake up", model="asleep", max_tokens=4, deadline_s=120)
            last = int(await asyncio.to_thread(installed.field, "wp/steady", ".spec.replicas"))
            running = [stream for stream in readers.streams if stream.done is None]
        numbers = [*(replicas for _, replicas in seen["steady"][earlier:]), last]
        print(f"\nanother one led after {seconds:.1f} s; {len(running)} of {FEW} answers ran; replicas {numbers}")
    assert woken.text
    assert len(running) == FEW
    assert min(numbers) >= FEW / slots  # the hold outlives its operator
    assert readers.wrong == []
    assert readers.killed == 0


async def across_new_gateways(installed: Installation, name: str, change: Callable[[], object]) -> None:
    """Answers that speak before the change, and still when every gateway of before is gone: each was read on elsewhere."""

    def gateways() -> set[str]:
        pods = installed.get("pods", "-l", "app.kubernetes.io/component=gateway")["items"]
        return {pod["metadata"]["name"] for pod in pods}  # those that are on their way out as well

    async with crowd(installed, name, FEW, model="simulator", **LONG) as readers:
        before = await asyncio.to_thread(gateways)
        await asyncio.to_thread(change)
        seconds = await asyncio.to_thread(installed.until, lambda: not gateways() & before, 180)
        running = [stream for stream in readers.streams if stream.done is None]
    print(f"\n{name}: {len(before)} gateways gone {seconds:.1f} s after it; {len(running)} of {FEW} answers went on")
    assert len(running) == FEW
    assert readers.wrong == []
    assert [stream.restarts for stream in readers.streams] == [0] * FEW


@scenario("gateway-rollout")
async def test_a_gateway_rollout_loses_no_byte(installed: Installation) -> None:
    """Clients reconnect and go on at their offset."""

    def roll() -> None:
        installed.kubectl("rollout", "restart", "deployment/millrace-gateway")
        installed.kubectl("rollout", "status", "deployment/millrace-gateway", "--timeout=180s", timeout_s=200)

    await across_new_gateways(installed, "gateway rollout", roll)


@scenario("upgrade")
async def test_helm_upgrade_keeps_resources_and_running_answers(installed: Installation) -> None:
    """Custom resources, key and streams outlive it, and the gateways that they began on do not."""
    key, pools_before = installed.key, installed.kubectl("get", "wp", "-o", "name")
    replicas = installed.get("deployment/millrace-gateway")["spec"]["replicas"]

    def upgrade() -> None:
        changed = ("--reuse-values", "--set-string", f"gateway.podAnnotations.upgraded={secrets.token_hex(4)}")
        installed.helm("upgrade", "millrace", str(CHART), *changed, "--wait")

    await across_new_gateways(installed, "helm upgrade", upgrade)
    assert (installed.key, installed.kubectl("get", "wp", "-o", "name")) == (key, pools_before)
    assert installed.get("deployment/millrace-gateway")["spec"]["replicas"] == replicas


@scenario("operator-kills")
async def test_an_operator_killed_again_and_again_under_load_loses_nothing(installed: Installation) -> None:
    """By seed, gently or not, while work comes and goes: bounds hold, each drain ends well, nothing is left behind."""
    rng = random.Random(SEED)
    scaling = {"minReplicas": 0, "maxReplicas": 4, "idleSeconds": 2, "hold": {"mode": "Fixed", "seconds": 2}}
    over = asyncio.Event()
    crowds: list[Crowd] = []

    async def work() -> None:
        while not over.is_set():
            size, tokens = rng.choice([4, 12, 40]), rng.choice([50, 150, 400])
            async with crowd(installed, f"wave {len(crowds)}", size, model=name, tokens=tokens, rate=25) as readers:
                crowds.append(readers)
            await asyncio.sleep(rng.choice([0, 3, 15]))

    name = "restless"
    with pools(installed, name, slots=4, **scaling), orders(installed) as seen:
        working = asyncio.create_task(work())
        try:
            for _ in range(KILLS):
                await asyncio.to_thread(installed.until, installed.operator_leads, 90)
                await asyncio.sleep(rng.uniform(0, 8))
                how = rng.choice([["--grace-period=0", "--force"], ["--grace-period=5"]])
                await asyncio.to_thread(
                    installed.kubectl, "delete", "pod", "-l", "app.kubernetes.io/component=operator", *how
                )
        finally:
            over.set()
            await working
        answers = sum(len(readers.streams) for readers in crowds)
        await asyncio.to_thread(installed.until, lambda: seen[name][-1][1] == 0 and not installed.pods(name), 120)
        numbers = [replicas for _, replicas in seen[name]]
        killed = sum(readers.killed for readers in crowds)
        print(f"\n{KILLS} kills, {answers} answers, {killed} killed; replicas {numbers}")
        assert [stream for readers in crowds for stream in readers.wrong] == []
        assert killed == 0
        assert 0 < max(numbers) <= 4
