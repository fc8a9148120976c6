"""`python -m tests.chaos --tasks N --seed S`."""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from millrace.task.v1.task_pb2 import Message
from services.cli.stack.handle import Stack
from services.worker.adapters.simulator_engine import SimulatorPrompts
from services.worker.core.simulated_text import simulated_text
from tests.bench.measure import Result, complete, console, report, table, wait_until_answering
from tests.chaos.reader import Answer, Reader
from tests.chaos.schedule import Fault, Kind, faults
from tests.chaos.verdict import judge, usage_records

# Not hurt: those that end by themselves, and the supervisor, which is the tool that restarts the others.
SPARED = {"topics"}
TRITON_STREAMS = 8
CONCURRENT = 120
SIM_TOKENS, TINY_TOKENS = 64, 24
SECOND_READERS = 0.1


@dataclass
class Run:
    """One chaos run and what it counted."""

    stack: Stack
    seed: int
    tasks: int
    drop_share: float
    hurt: dict[str, int] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    second: list[Answer] = field(default_factory=list)
    tiny_text: dict[str, str] = field(default_factory=dict)

    def reader(self, number: int) -> Reader:
        """A client with randomness of its own, so that a seed is one behaviour whatever the timing."""
        status = self.stack.status
        addresses = status.addresses("gateway", "http")
        return Reader(lambda: addresses, status.key, random.Random(f"{self.seed}/{number}"), self.drop_share)

    async def work(self) -> None:
        """Answer by answer: 8 streams at a time on Triton, the rest on the simulator."""
        numbers = iter(range(self.tasks))

        async def lane(model: str, tokens: int) -> None:
            for number in numbers:
                answer = Answer(f"chaos-{self.seed}-{number}", self.prompt(model, number), model, tokens)
                reader = self.reader(number)
                self.answers.append(await reader.run(answer))
                if answer.task and reader.rng.random() < SECOND_READERS:
                    late = Answer(answer.key, answer.prompt, model, tokens, task=answer.task)
                    self.second.append(await self.reader(-number - 1).run(late))
                if len(self.answers) % 100 == 0:
                    console.print(f"{len(self.answers)} of {self.tasks} tasks, {sum(self.hurt.values())} faults")

        lanes = [("tiny", TINY_TOKENS)] * TRITON_STREAMS + [("sim", SIM_TOKENS)] * (CONCURRENT - TRITON_STREAMS)
        await asyncio.gather(*[lane(*kind) for kind in lanes])

    def prompt(self, model: str, number: int) -> str:
        """Few different ones for the tiny LM, whose undisturbed answers must be known; any for the simulator."""
        return (
            f"tell me about the module number {number % 8}" if model == "tiny" else f"task {number} of run {self.seed}"
        )

    def learn(self) -> None:
        """The tiny LM's undisturbed greedy answers."""
        for number in range(8):
            prompt = self.prompt("tiny", number)
            answer = complete(self.stack, "tiny", prompt, max_tokens=TINY_TOKENS, temperature=0)
            self.tiny_text[prompt] = answer["choices"][0]["message"]["content"]

    def expected(self, answer: Answer) -> str | None:
        """What the answer must be, where that is known.

        A model tokenises the text so far again when it goes on after a fault, so only an undisturbed answer of it is known.
        """
        if answer.model == "tiny":
            return self.tiny_text[answer.prompt] if answer.ends[0]["timings"]["attempts"] == 1 else None
        rendered = SimulatorPrompts().render([Message(role="user", content=answer.prompt)])
        return simulated_text(rendered, answer.max_tokens)

    @contextlib.asynccontextmanager
    async def hurting(self) -> AsyncIterator[None]:
        """Faults from the schedule until the block ends; what was paused is let go."""
        instances = [c.name for c in self.stack.status.components if c.name not in SPARED]

        async def hurt() -> None:
            for fault in faults(self.seed, instances):
                await asyncio.sleep(fault.wait_s)
                self.hurt[f"{fault.kind} {fault.instance}"] = self.hurt.get(f"{fault.kind} {fault.instance}", 0) + 1
                await self.strike(fault)

        hurting = asyncio.create_task(hurt())
        try:
            yield
        finally:
            hurting.cancel()
            await asyncio.gather(hurting, return_exceptions=True)
            for instance in instances:
                self.stack.signal(instance, signal.SIGCONT)

    async def strike(self, fault: Fault) -> None:
        """Carry out one fault."""
        if fault.kind is Kind.KILL:
            self.stack.signal(fault.instance, signal.SIGKILL)
            return
        self.stack.signal(fault.instance, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.pause_s)
        finally:
            self.stack.signal(fault.instance, signal.SIGCONT)


def main() -> int:
    """Run, judge, report."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description="Kill everything, lose nothing.")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--drops", type=float, default=0.1, help="chance that a client cuts its connection after a frame"
    )
    parser.add_argument("--calm", action="store_true", help="only client drops, no process is hurt")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with (
        tempfile.TemporaryDirectory(prefix="millrace-chaos-") as folder,
        Stack(Path(folder), ports="free", counts={"worker-sim": 2}, tied=True) as stack,
    ):
        stack.wait_ready()
        wait_until_answering(stack, "sim")
        wait_until_answering(stack, "tiny")
        run = Run(stack, arguments.seed, arguments.tasks, arguments.drops)
        run.learn()
        began = time.monotonic()
        asyncio.run(go(run, calm=arguments.calm))
        seconds = time.monotonic() - began
        stack.wait_ready()
        usage = usage_records(stack.status.addresses("kafka", "port")[0])
        wrong, sentences = judge(run.answers, run.second, usage, run.expected)
        if sentences:
            keep = Path(tempfile.mkdtemp(prefix="millrace-chaos-evidence-"))
            for component in stack.status.components:
                with contextlib.suppress(OSError):
                    (keep / f"{component.name}.log").write_bytes(Path(component.log).read_bytes())
            console.print("\n".join(sentences[:20]), style="red", markup=False)
            console.print(f"logs: {keep}")
    table("faults", [{"fault": name, "times": times} for name, times in sorted(run.hurt.items())])
    detail = {
        "seed": arguments.seed, "tasks": len(run.answers), "seconds": round(seconds, 1), "faults": sum(run.hurt.values()),
        "client drops": sum(a.drops for a in run.answers), "refusals retried": sum(a.refusals for a in run.answers),
        "restarted": sum(a.restarts for a in run.answers), "second readers": len(run.second), **wrong,
    }  # fmt: skip
    table("result", [{"what": name, "count": count} for name, count in detail.items()])
    ok = not sum(wrong.values()) and len(run.answers) == arguments.tasks
    report(Result("chaos", sum(wrong.values()), "faults seen by clients", "== 0", ok, detail))
    return 0 if ok else 1


async def go(run: Run, *, calm: bool) -> None:
    """The work, under faults unless calm."""
    if calm:
        await run.work()
    else:
        async with run.hurting():
            await run.work()


if __name__ == "__main__":
    sys.exit(main())
