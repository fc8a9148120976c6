"""Dispatcher killed, and stopped (SIGSTOP), under load: time to the next assignment."""

import asyncio
import signal
import time

import msgspec
from websockets.asyncio.client import connect

from services.cli.stack.handle import Stack
from tests.bench.measure import Options, Result, bench_stack, median, table

TARGET_S = 3.0
EVERY_S = 0.02


async def first_delta_after(stack: Stack, fault: signal.Signals, label: str) -> float:
    """Submit a prompt each 20 ms; seconds from the fault to the first text of one that was submitted after it."""
    status = stack.status
    owner = await asyncio.to_thread(owner_of, stack)
    at = 0.0
    after: set[str] = set()
    async with connect(
        f"ws://{status.addresses('gateway', 'http')[0]}/v1/ws",
        additional_headers={"Authorization": f"Bearer {status.key}"},
        subprotocols=["millrace.v1"],  # type: ignore[list-item]
        max_size=None,
    ) as socket:

        async def submit() -> None:
            nonlocal at
            began = time.monotonic()
            for number in range(1000):
                if not at and time.monotonic() - began > 1.0:
                    at = time.monotonic()
                    stack.signal(owner, fault)
                key = f"{label}-{number}"
                await socket.send(
                    msgspec.json.encode(
                        {"t": "submit", "key": key, "model": "sim", "input": "hi", "max_tokens": 4, "cache": "bypass"}
                    ).decode()
                )
                if at:
                    after.add(key)
                await asyncio.sleep(EVERY_S)

        submitting = asyncio.create_task(submit())
        tasks: set[str] = set()
        try:
            async for raw in socket:
                frame = msgspec.json.decode(raw)
                if frame["t"] == "ack" and frame["key"] in after:
                    tasks.add(frame["task"])
                elif frame["t"] == "delta" and frame["task"] in tasks:
                    return time.monotonic() - at
        finally:
            submitting.cancel()
            if fault == signal.SIGSTOP:
                stack.signal(owner, signal.SIGCONT)
    raise RuntimeError("the gateway closed the connection")


def owner_of(stack: Stack) -> str:
    """The dispatcher whose address stands in the lease of the pool."""
    import redis

    from services.pools.core.ownership import decode, owner_key

    url = f"redis://{stack.status.addresses('redis', 'port')[0]}"
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        raw = redis.Redis.from_url(url).get(owner_key("sim"))
        if raw:
            address = decode(raw).address  # type: ignore[arg-type]
            for component in stack.status.named("dispatcher"):
                if address.endswith(f":{component.ports['streams']}"):
                    return component.name
        time.sleep(0.1)
    raise RuntimeError("no dispatcher owns the pool sim")


def run(options: Options) -> Result:
    """Kill and stop, three times each; the worse median counts."""
    rows = []
    with bench_stack(dispatcher=2) as stack:
        for i in range(options.runs):
            for fault in (signal.SIGKILL, signal.SIGSTOP):
                seconds = asyncio.run(first_delta_after(stack, fault, f"{fault.name}{i}"))
                rows.append({"fault": fault.name, "seconds": seconds})
                stack.wait_ready()
                time.sleep(3)  # the other one is a standby again
    table("dispatcher failover to the next assignment", rows)
    value = max(median([r["seconds"] for r in rows if r["fault"] == name]) for name in ("SIGKILL", "SIGSTOP"))
    return Result("failover", value, "s", f"<= {TARGET_S:.0f}", value <= TARGET_S, {"runs": rows})
