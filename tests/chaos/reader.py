"""A client that counts: it speaks the WebSocket protocol itself, so that no library of ours hides a fault."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

KEY = "chaos-key"  # the metadata that names the client's key in the usage record
PATIENCE_S = 15.0  # silence on one connection before another gateway is tried
DEADLINE_S = 240.0  # of one task, faults included


@dataclass
class Answer:
    """What one reader saw of one task."""

    key: str
    prompt: str
    model: str
    max_tokens: int
    task: str = ""
    gen: str = ""
    text: list[str] = field(default_factory=list)
    offset: int = 0
    ends: list[dict[str, Any]] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    restarts: int = 0
    drops: int = 0
    submissions: int = 0
    refusals: int = 0
    complaint: str = ""
    began_at: float = 0.0
    ended_at: float = 0.0

    @property
    def whole(self) -> str:
        """All text."""
        return "".join(self.text)


class Dropped(Exception):  # noqa: N818 - an event, not an error
    """This client cut its own connection."""


@dataclass
class Reader:
    """Reads tasks through gateways that come and go."""

    addresses: Callable[[], Sequence[str]]
    key: str
    rng: random.Random
    drop_share: float

    async def run(self, answer: Answer) -> Answer:
        """Submit, or resume a task that is known, and read to the end; whatever happens goes into the answer."""
        answer.began_at = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not answer.ends:
                    try:
                        await self._connect_and_read(answer)
                    except (OSError, WebSocketException, InvalidHandshake, TimeoutError, Dropped):
                        await asyncio.sleep(self.rng.uniform(0.02, 0.3))
        except TimeoutError:
            answer.complaint = f"no end within {DEADLINE_S:.0f} s"
        answer.ended_at = time.monotonic()
        return answer

    async def _connect_and_read(self, answer: Answer) -> None:
        address = self.rng.choice(list(self.addresses()))
        async with connect(
            f"ws://{address}/v1/ws",
            additional_headers={"Authorization": f"Bearer {self.key}"},
            subprotocols=["millrace.v1"],
            compression=None,
            open_timeout=5,
            close_timeout=0.2,
            ping_interval=None,
            max_size=None,
        ) as socket:
            await socket.send(msgspec.json.encode(self._opening(answer)).decode())
            if not answer.task:
                answer.submissions += 1
                if (
                    self.rng.random() < self.drop_share
                ):  # gone before the acknowledgment: the same key comes again, elsewhere
                    await self._cut(socket)
            while not answer.ends:
                frame = msgspec.json.decode(await asyncio.wait_for(socket.recv(), PATIENCE_S))
                if not self._take(answer, frame):
                    return
                if frame["t"] in {"ack", "delta"} and self.rng.random() < self.drop_share:
                    answer.drops += 1
                    await self._cut(socket)
            await self._listen_on(answer, socket)

    def _opening(self, answer: Answer) -> dict[str, object]:
        if answer.task:
            return {"t": "resume", "task": answer.task, "gen": answer.gen, "offset": answer.offset}
        return {
            "t": "submit", "key": answer.key, "model": answer.model, "input": answer.prompt, "max_tokens": answer.max_tokens,
            "temperature": 0, "cache": "bypass", "metadata": {KEY: answer.key},
        }  # fmt: skip

    def _take(self, answer: Answer, frame: dict[str, object]) -> bool:
        """Count one frame; False when the connection is of no more use."""
        match frame["t"]:
            case "ack":
                if answer.task not in {"", frame["task"]}:
                    answer.complaint = f"the same key is another task: {frame['task']}"
                answer.task = str(frame["task"])
            case "delta":
                self._delta(answer, str(frame["gen"]), int(str(frame["offset"])), str(frame["text"]))
            case "restarted":
                answer.restarts += 1
                answer.gen, answer.offset, answer.text = str(frame["gen"]), 0, []
            case "done":
                answer.ends.append(frame)
                if frame["offset"] != answer.offset:
                    answer.complaint = f"ends at {frame['offset']}, read {answer.offset}"
            case "error" | "gone" | "going_away":
                answer.refusals += 1
                if not frame.get("retryable", frame["t"] == "going_away"):
                    answer.complaint = str(frame)
                    answer.ends.append(frame)
                return False
        return True

    @staticmethod
    def _delta(answer: Answer, gen: str, offset: int, text: str) -> None:
        start = offset - len(text.encode())
        if answer.ends:
            answer.complaint = "text after the end"
        if answer.gen and gen != answer.gen:
            answer.complaint = f"another text {gen} without `restarted`"
        if start > answer.offset:
            answer.lost += start - answer.offset
        if start < answer.offset:
            answer.doubled += answer.offset - start
        answer.gen, answer.offset = gen, offset
        answer.text.append(text)

    @staticmethod
    async def _cut(socket: ClientConnection) -> None:
        socket.transport.abort()
        raise Dropped

    async def _listen_on(self, answer: Answer, socket: ClientConnection) -> None:
        """Nothing may follow the end."""
        try:
            while True:
                frame = msgspec.json.decode(await asyncio.wait_for(socket.recv(), 0.1))
                if frame["t"] in {"delta", "done", "restarted"}:
                    self._take(answer, frame)
        except (TimeoutError, WebSocketException):
            return
