"""Many users who ask, read and ask again, over gRPC: `python load.py`, settings in LOAD_*; runs in any image of a service.

Each answer is read to its last byte, over any break, from where the reader was. At the end one JSON line: how many, how
fast, what went wrong. The exit status is 1 when an accepted prompt had no whole answer, or when nothing was answered.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from millrace.inference.v1 import inference_pb2 as pb
from millrace.inference.v1.inference_pb2_grpc import InferenceStub
from millrace.task.v1 import task_pb2

SAY_EVERY_S = 5.0
PAUSE_S = 0.5  # after a refusal or a break
TRIES = 60  # breaks in a row without a byte in between, until an answer is given up
BROKEN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each user, so that all gateways are used


@dataclass(frozen=True)
class Settings:
    """What is asked, of whom."""

    gateway: str = "127.0.0.1:8081"
    key: str = ""
    model: str = "simulator"
    users: int = 16
    seconds: float = 60.0
    tokens: int = 128
    patience_s: float = 240.0  # for the first answer: a new key, a pool that is at zero

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """LOAD_GATEWAY and so on; what is not set has its default."""
        kinds = {name: type(kind.default) for name, kind in cls.__dataclass_fields__.items()}
        given = {name: environment.get(f"LOAD_{name.upper()}") for name in kinds}
        return cls(**{name: kinds[name](value) for name, value in given.items() if value is not None})


@dataclass
class Tally:
    """What happened."""

    asked: int = 0
    completed: int = 0
    tokens: int = 0
    breaks: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    accepted_s: list[float] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)

    def report(self, took_s: float) -> dict[str, Any]:
        """As one object: counts, rates, milliseconds."""
        return {
            "asked": self.asked,
            "completed": self.completed,
            "refused": dict(self.refused),
            "failed": dict(self.failed),
            "breaks": self.breaks,
            "seconds": round(took_s, 1),
            "tokens_per_s": round(self.tokens / took_s, 1) if took_s else 0.0,
            "accepted_ms": _percentiles(self.accepted_s),
            "first_token_ms": _percentiles(self.first_token_s),
        }

    @property
    def good(self) -> bool:
        """Everything that was accepted was answered."""
        return bool(self.completed) and not self.failed


class User:
    """Asks one prompt after the other."""

    def __init__(self, settings: Settings, tally: Tally) -> None:
        self._settings, self._tally = settings, tally
        self._metadata = (("authorization", f"Bearer {settings.key}"),)
        self._channel = grpc.aio.insecure_channel(settings.gateway, options=OPTIONS)
        self._stub = InferenceStub(self._channel)

    async def ask_until(self, end: float, name: str) -> None:
        """New prompts until `end`, on the clock of `time.monotonic`."""
        number = 0
        while time.monotonic() < end:
            number += 1
            if not await self.ask(f"{name} asks for the {number}. time", self._settings.tokens):
                await asyncio.sleep(PAUSE_S)

    async def ask(self, prompt: str, tokens: int) -> bool:
        """One prompt, read to its end. False when it was refused, or ended without an answer."""
        tally, began = self._tally, time.monotonic()
        request = pb.SubmitRequest(
            model=self._settings.model, input=prompt, max_tokens=tokens, cache=task_pb2.CACHE_MODE_BYPASS
        )
        request.deadline.FromSeconds(600)
        call = self._stub.Generate(request, metadata=self._metadata)
        task, gen, offset, first, tries = "", "", 0, True, 0
        tally.asked += 1
        while True:
            try:
                async for event in call:
                    tries = 0
                    match event.WhichOneof("event"):
                        case "accepted":
                            task = event.accepted.task
                            tally.accepted_s.append(time.monotonic() - began)
                        case "restarted":
                            gen, offset = event.restarted.gen, 0
                        case "delta":
                            if first:
                                tally.first_token_s.append(time.monotonic() - began)
                                first = False
                            gen, offset = event.delta.gen, event.delta.offset
                        case "done":
                            return self._ended(event.done.outcome)
                why = "the stream ended before the answer did"
            except grpc.aio.AioRpcError as error:
                why = error.code().name
                if not task:
                    tally.refused[f"{why}: {error.details()}"] += 1
                    return False
                if error.code() not in BROKEN:
                    tries = TRIES
            tries += 1
            if not task or tries > TRIES:
                tally.failed[why] += 1
                return False
            tally.breaks += 1
            await asyncio.sleep(PAUSE_S)
            cursor = pb.WatchRequest(task=task, gen=gen, offset=offset)
            call = self._stub.Watch(cursor, metadata=self._metadata)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._channel.close()

    def _ended(self, outcome: task_pb2.Outcome) -> bool:
        if outcome.kind != task_pb2.OUTCOME_KIND_COMPLETED:
            self._tally.failed[outcome.error_code or task_pb2.OutcomeKind.Name(outcome.kind)] += 1
            return False
        self._tally.completed += 1
        self._tally.tokens += outcome.usage.completion_tokens
        return True


async def run(settings: Settings) -> Tally:
    """The whole load; says every few seconds how far it is."""
    await first_answer(settings)
    tally, began = Tally(), time.monotonic()
    users = [User(settings, tally) for _ in range(settings.users)]
    teller = asyncio.create_task(_tell(tally, began))
    try:
        end = began + settings.seconds
        await asyncio.gather(*(user.ask_until(end, f"user {number}") for number, user in enumerate(users)))
    finally:
        teller.cancel()
        await asyncio.gather(*(user.close() for user in users))
    _say(tally.report(time.monotonic() - began))
    return tally


async def first_answer(settings: Settings) -> None:
    """Wait until a prompt is answered; then the key is known and a worker is there.

    Raises TimeoutError with what was said last.
    """
    began, tally = time.monotonic(), Tally()
    user = User(settings, tally)
    try:
        while not await user.ask("is anybody there?", 1):
            if time.monotonic() - began > settings.patience_s:
                raise TimeoutError(f"no answer within {settings.patience_s:.0f} s: {tally.report(0.0)}")
            await asyncio.sleep(PAUSE_S)
    finally:
        await user.close()
    _say({"first_answer_s": round(time.monotonic() - began, 1)})


def main() -> int:
    """Exit status."""
    try:
        return 0 if asyncio.run(run(Settings.read(os.environ))).good else 1
    except TimeoutError as reason:
        print(reason, file=sys.stderr)  # noqa: T201 - its output
        return 1


async def _tell(tally: Tally, began: float) -> None:
    while True:
        await asyncio.sleep(SAY_EVERY_S)
        _say({"after_s": round(time.monotonic() - began), "asked": tally.asked, "completed": tally.completed})


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - its output


def _percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        f"p{n}": round(1000 * ordered[min(len(ordered) * n // 100, len(ordered) - 1)], 1) for n in (50, 99) if ordered
    }


if __name__ == "__main__":
    sys.exit(main())
