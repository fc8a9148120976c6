"""`python -m tests.chaos --tasks N --seed S`."""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from millrace.task.v1.task_pb2 import Message
from services.cli.stack.handle import Stack
from services.worker.adapters.simulator_engine import SimulatorPrompts
from services.worker.core.simulated_text import simulated_text
from tests.bench.measure import Result, complete, console, report, table, wait_until_answering
from tests.chaos.reader import Answer, Reader
from tests.chaos.schedule import STORES, Fault, Kind, rounds
from tests.chaos.strikes import cut, produce_again
from tests.chaos.verdict import given_up, judge, repeated, settled_usage
from tests.support.faults import paused, slowed

# Not hurt: those that end by themselves, and the supervisor, which is the tool that restarts the others.
SPARED = {"topics"}
POOLS = ("sim", "tiny")
TRITON_STREAMS = 8
STREAMS, FEWEST = 120, 20
SIM_TOKENS, TINY_TOKENS = 64, 24
SECOND_READERS = 0.1


@dataclass
class Run:
    """One chaos run and what it counted."""

    stack: Stack
    seed: int
    tasks: int
    drop_share: float
    calm: bool = False
    faults: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=lambda: Counter({"connections cut": 0, "records produced twice": 0}))
    rounds: int = 0  # of faults that are over
    begun: int = 0  # tasks
    engine_breaks: list[float] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    second: list[Answer] = field(default_factory=list)
    tiny_text: dict[str, str] = field(default_factory=dict)

    def reader(self, number: int) -> Reader:
        """A client with randomness of its own, so that a seed is one behaviour whatever the timing."""
        status = self.stack.status
        addresses = status.addresses("gateway", "http")
        return Reader(lambda: addresses, status.key, random.Random(f"{self.seed}/{number}"), self.drop_share)

    @property
    def over(self) -> bool:
        """As many tasks as were asked for have begun, and a whole round of faults is over. What still runs then ends in peace."""
        return self.begun >= self.tasks and (self.calm or self.rounds > 0)

    async def go(self) -> None:
        """The work, under faults unless calm. A fault that cannot be done ends the run."""
        async with asyncio.TaskGroup() as group:
            if not self.calm:
                group.create_task(self.hurt())
            await self.work()

    async def work(self) -> None:
        """Answer by answer: 8 streams at a time on Triton, the rest on the simulator."""

        async def lane(model: str, tokens: int) -> None:
            while not self.over:
                number, self.begun = self.begun, self.begun + 1
                answer = Answer(f"chaos-{self.seed}-{number}", self.prompt(model, number), model, tokens)
                reader = self.reader(number)
                self.answers.append(await reader.run(answer))
                if answer.task and reader.rng.random() < SECOND_READERS:
                    late = Answer(answer.key, answer.prompt, model, tokens, task=answer.task)
                    self.second.append(await self.reader(-number - 1).run(late))
                if len(self.answers) % 100 == 0:
                    console.print(f"{len(self.answers)} tasks, {self.faults.total()} faults")

        streams = min(STREAMS, max(FEWEST, self.tasks // 10))
        lanes = [("tiny", TINY_TOKENS)] * TRITON_STREAMS + [("sim", SIM_TOKENS)] * (streams - TRITON_STREAMS)
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

    async def hurt(self) -> None:
        """Faults from the schedule until it is over."""
        instances = [c.name for c in self.stack.status.components if c.name not in SPARED]
        for faults in rounds(self.seed, instances, POOLS):
            for fault in faults:
                if self.over:
                    return
                await asyncio.sleep(fault.wait_s)
                await self.strike(fault)
                self.faults[fault.target, fault.kind] += 1
            self.rounds += 1

    async def strike(self, fault: Fault) -> None:
        """Carry out one fault."""
        while fault.target not in POOLS and not self.stack.pid(fault.target):  # it is between two lives
            await asyncio.sleep(0.05)
        if breaks_off_an_engine(fault):
            self.engine_breaks.append(time.monotonic())
        match fault.kind:
            case Kind.KILL:
                self.stack.signal(fault.target, signal.SIGKILL)
            case Kind.PAUSE:
                with paused(self.stack, fault.target):
                    await asyncio.sleep(fault.for_s)
            case Kind.SLOW:
                with slowed(self.stack, fault.target, fault.share):
                    await asyncio.sleep(fault.for_s)
            case Kind.CUT:
                rng = random.Random(f"{self.seed}/{self.faults.total()}")
                self.hit["connections cut"] += cut(self.stack.pid(fault.target), fault.share, rng)
            case Kind.DUPLICATE:
                bootstrap = self.stack.status.addresses("kafka", "port")[0]
                self.hit["records produced twice"] += await asyncio.to_thread(produce_again, bootstrap, fault.target)


def breaks_off_an_engine(fault: Fault) -> bool:
    """Does it end what Triton was answering? The simulator lives and dies with its worker."""
    cut_off = fault.target == "triton" or (fault.target.startswith("worker-") and "sim" not in fault.target)
    return (fault.kind is Kind.CUT and cut_off) or (fault.kind is Kind.KILL and fault.target == "triton")


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
        run = Run(stack, arguments.seed, arguments.tasks, arguments.drops, arguments.calm)
        run.learn()
        began = time.monotonic()
        asyncio.run(run.go())
        seconds = time.monotonic() - began
        stack.wait_ready()
        usage = settled_usage(stack.status.addresses("kafka", "port")[0], run.answers)
        logs = {c.name: Path(c.log).read_text(errors="replace") for c in stack.status.components}
        ours = {name: text for name, text in logs.items() if name not in STORES}
        wrong, sentences = judge(
            run.answers, run.second, usage, run.expected, logs=ours, engine_breaks=run.engine_breaks
        )
        if sentences:
            keep = Path(tempfile.mkdtemp(prefix="millrace-chaos-evidence-"))
            for name, text in (logs | {"supervisor": stack.home.log("supervisor").read_text(errors="replace")}).items():
                (keep / f"{name}.log").write_text(text)
            console.print("\n".join(sentences[:20]), style="red", markup=False)
            console.print(f"logs: {keep}")
    rows = [
        {"target": name} | {kind: run.faults[name, kind] for kind in Kind}
        for name in sorted({n for n, _ in run.faults})
    ]
    table("faults", rows)
    detail = {
        "seed": arguments.seed, "tasks": len(run.answers), "seconds": round(seconds, 1), "faults": run.faults.total(),
        **{kind.value: sum(row[kind] for row in rows) for kind in Kind}, **run.hit, "client drops": sum(a.drops for a in run.answers),
        "submissions repeated": sum(a.submissions - 1 for a in run.answers), "refusals retried": sum(a.refusals for a in run.answers),
        "restarted": sum(a.restarts for a in run.answers), "second readers": len(run.second),
        "given up": sum(given_up(a, run.engine_breaks) for a in run.answers if a.ends), **repeated(run.answers, usage), **wrong,
    }  # fmt: skip
    table("result", [{"what": name, "count": count} for name, count in detail.items()])
    ok = not sum(wrong.values())
    report(Result("chaos", sum(wrong.values()), "things that went wrong", "== 0", ok, detail))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
