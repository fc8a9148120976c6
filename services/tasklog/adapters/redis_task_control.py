"""Claim and state of tasks in Redis hashes.

The claim is one field, so HSETNX decides for all of it at once which of two submissions comes first.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from millrace.task.v1.task_pb2 import Task
from services.chassis.resp import Command, Resp
from services.tasklog.adapters.redis_replies import checked, keep_at_least, milliseconds
from services.tasklog.core.control import Claim, Control
from services.tasklog.core.keys import control_key

CLAIMED: Final = b"claimed"  # what a claim without a state counts as


class _Claimed(msgspec.Struct, frozen=True):
    """The field `claim`, as JSON. Times in Unix seconds, the hash in base64."""

    body_hash: bytes
    tenant: str
    model: str
    pool: str
    deadline: float
    submitted_at: float


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(_Claimed)
_NOTHING: Final = _Claimed(b"", "", "", "", 0.0, 0.0)


class RedisTaskControl:
    """`TaskControl` on a connected `Resp`."""

    def __init__(self, resp: Resp) -> None:
        self._resp = resp

    async def claim(self, task: Task, keep_s: float) -> Claim:
        """Claim the id for this body and pool and count the try."""
        key = control_key(task.id)
        claimed = _Claimed(
            task.body_hash,
            task.tenant,
            task.model,
            task.pool,
            task.deadline.ToNanoseconds() / 1e9,
            task.submitted_at.ToNanoseconds() / 1e9,
        )
        _, tries, (first, state), *_ = await self._carry_out(
            ("HSETNX", key, "claim", _encoder.encode(claimed)),
            ("HINCRBY", key, "tries", 1),
            ("HMGET", key, "claim", "state"),
            *keep_at_least(key, keep_s),
        )
        found = _decoder.decode(first)
        return Claim(found.body_hash == task.body_hash, tries, (state or CLAIMED).decode(), found.pool)

    async def accepted(self, task: str) -> None:
        """HSETNX: an end that was written already stays."""
        await self._carry_out(("HSETNX", control_key(task), "state", "accepted"))

    async def ended(self, task: str) -> None:
        """A later record of the task never runs again."""
        await self._carry_out(("HSET", control_key(task), "state", "ended"))

    async def expire(self, task: str, keep_s: float) -> None:
        """Keep claim and state for exactly `keep_s` seconds from now."""
        await self._carry_out(("PEXPIRE", control_key(task), milliseconds(keep_s)))

    async def get(self, task: str) -> Control | None:
        """None: unknown or forgotten."""
        return (await self.get_many([task]))[0]

    async def get_many(self, tasks: Sequence[str]) -> list[Control | None]:
        """As `get`, in one pipeline."""
        replies = await self._carry_out(*(("HMGET", control_key(task), "claim", "state") for task in tasks))
        return [_control(*reply) for reply in replies]

    async def _carry_out(self, *commands: Command) -> list[Any]:
        return [checked(reply) for reply in await self._resp.pipe(*commands)]


def _control(claim: bytes | None, state: bytes | None) -> Control | None:
    if claim is None and state is None:
        return None
    found = _decoder.decode(claim) if claim else _NOTHING
    return Control(
        found.tenant, found.model, found.pool, (state or CLAIMED).decode(), found.deadline, found.submitted_at
    )
