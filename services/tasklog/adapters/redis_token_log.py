"""The token log on Redis streams, over one pipelined connection. No Lua: explicit ids do what a script would."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import hiredis

from millrace.task.v1.task_pb2 import Route
from services.chassis.resp import Command, Resp, pack
from services.tasklog.adapters.redis_replies import checked, keep_at_least, milliseconds
from services.tasklog.core.beginning import begin_from
from services.tasklog.core.codec import decode, encode
from services.tasklog.core.entries import (
    TERMINAL_SEQUENCE,
    AppendResult,
    Begin,
    Delta,
    Entry,
    Fenced,
    Header,
    Lost,
    Terminal,
    Written,
)
from services.tasklog.core.ids import entry_id, parse_entry_id
from services.tasklog.core.keys import CANCEL, log_key, readers_key

_MULTI: Final[Command] = ("MULTI",)
_EXEC: Final[Command] = ("EXEC",)
_UNREAD: Final = Written()  # of most tasks: their reader's route is in the record


class RedisTokenLog:
    """`TokenLog` on a connected `Resp`."""

    def __init__(self, resp: Resp) -> None:
        self._resp = resp

    @property
    def run_id(self) -> str:
        """The run id of the Redis this log was last connected to."""
        return self._resp.run_id

    async def begin(self, task: str, header: Header, keep_s: float) -> Begin | Fenced:
        """Fence first, then read, in one pipeline: Redis carries it out in that order."""
        key, place = log_key(task), entry_id(header.attempt, 0)
        added, own, below, *kept = await self._resp.pipe(
            ("XADD", key, place, *encode(header)),
            ("XRANGE", key, place, place),
            ("XRANGE", key, "-", f"({place}"),
            *keep_at_least(key, keep_s),
            run_id=header.run_id,
        )
        if _refused(added) and header not in _entries(own):  # its nonce tells a repeated header from another writer's
            return Fenced()
        for reply in kept:
            checked(reply)
        return begin_from(_entries(below), header.run_id)

    async def append(self, run_id: str, entries: Sequence[tuple[str, Delta | Terminal]]) -> list[AppendResult]:
        """One pipeline: the entries of each task, then who reads it and whether its cancel is wished."""
        tasks: dict[str, list[int]] = {}
        for index, (task, _) in enumerate(entries):
            tasks.setdefault(task, []).append(index)
        commands: list[Command] = []
        for task, places in tasks.items():
            key = log_key(task)
            writes = [_write(key, entries[index][1]) for index in places]
            commands += writes if len(writes) == 1 else (_MULTI, *writes, _EXEC)
            commands.append(_who_reads(task))
        replies = iter(await self._resp.pipe(*commands, run_id=run_id))
        results: list[AppendResult] = [Lost()] * len(entries)
        refused: list[int] = []
        for places in tasks.values():
            added = _added(replies, len(places))
            written = _written(next(replies))
            for index, reply in zip(places, added, strict=True):
                if _refused(reply):
                    refused.append(index)
                if reply is not None:  # None: NOMKSTREAM met no log
                    results[index] = written
        if refused:
            await self._read_back(run_id, entries, refused, results)
        return results

    async def rewrite(self, run_id: str, task: str, whole: Delta, terminal: Terminal | None) -> AppendResult:
        """The text as one entry, its terminal in the same transaction."""
        entries = [(task, entry) for entry in (whole if whole.end else None, terminal) if entry]
        return (await self.append(run_id, entries))[-1]

    async def read(self, task: str, after: tuple[int, int] | None = None) -> list[Entry]:
        """Entries above the id `after`, or all."""
        since = f"({entry_id(*after)}" if after else "-"
        (reply,) = await self._resp.pipe(("XRANGE", log_key(task), since, "+"))
        return _entries(reply)

    async def attach(self, task: str, route: Route, keep_s: float) -> None:
        """Write a reader's route."""
        key = readers_key(task)
        await self._carry_out(("HSET", key, _reader(route), route.handle), *keep_at_least(key, keep_s))

    async def detach(self, task: str, route: Route) -> None:
        """Remove a reader's route."""
        await self._carry_out(("HDEL", readers_key(task), _reader(route)))

    async def expire(self, task: str, keep_s: float) -> None:
        """Keep log, readers and wish for exactly `keep_s` seconds from now."""
        keys = log_key(task), readers_key(task)
        await self._carry_out(*(("PEXPIRE", key, milliseconds(keep_s)) for key in keys))

    async def wish_cancel(self, task: str, keep_s: float) -> None:
        """Write the wish to cancel."""
        key = readers_key(task)
        await self._carry_out(("HSET", key, CANCEL, 1), *keep_at_least(key, keep_s))

    async def cancel_wished(self, task: str) -> bool:
        """Was the task's cancel wished?"""
        (reply,) = await self._carry_out(("HGET", readers_key(task), CANCEL))
        return reply is not None

    async def _carry_out(self, *commands: Command) -> list[Any]:
        return [checked(reply) for reply in await self._resp.pipe(*commands)]

    async def _read_back(
        self,
        run_id: str,
        entries: Sequence[tuple[str, Delta | Terminal]],
        refused: Sequence[int],
        results: list[AppendResult],
    ) -> None:
        """Redis refuses a repeated id and a fenced one alike; the top of the log tells which it was."""
        tops = [("XREVRANGE", log_key(entries[index][0]), "+", "-", "COUNT", 1) for index in refused]
        for index, reply in zip(refused, await self._resp.pipe(*tops, run_id=run_id), strict=True):
            entry, top = entries[index][1], checked(reply)
            if not top:
                results[index] = Lost()
                continue
            attempt, sequence = parse_entry_id(top[0][0])
            if attempt != entry.attempt or sequence < _sequence(entry):
                results[index] = Fenced()


@lru_cache(maxsize=4096)  # the same for every append of a task
def _who_reads(task: str) -> bytes:
    return pack("HGETALL", readers_key(task))


def _sequence(entry: Delta | Terminal) -> int:
    return entry.end if isinstance(entry, Delta) else TERMINAL_SEQUENCE


def _write(key: str, entry: Delta | Terminal) -> Command:
    return ("XADD", key, "NOMKSTREAM", entry_id(entry.attempt, _sequence(entry)), *encode(entry))


def _added(replies: Iterator[Any], count: int) -> list[Any]:
    """The replies to the writes of one task: one as it is, several from their transaction."""
    if count == 1:
        return [next(replies)]
    for _ in range(count + 1):  # MULTI and what was queued
        checked(next(replies))
    return list(checked(next(replies)))


def _refused(reply: Any) -> bool:
    """Redis says the id is not above the last one. Any other error is raised, as by `checked`."""
    if isinstance(reply, hiredis.ReplyError) and "equal or smaller" in str(reply):
        return True
    checked(reply)
    return False


def _entries(reply: Any) -> list[Entry]:
    return [decode(raw_id, fields) for raw_id, fields in checked(reply)]


def _written(readers: Any) -> Written:
    if readers == []:
        return _UNREAD
    checked(readers)
    found = dict(zip(readers[::2], readers[1::2], strict=True))
    return Written(
        tuple(_route(reader, handle) for reader, handle in found.items() if b"|" in reader), CANCEL.encode() in found
    )


def _reader(route: Route) -> str:
    return f"{route.address}|{route.boot}"


@lru_cache(maxsize=16384)  # the same few readers, tick after tick
def _route(reader: bytes, handle: bytes) -> Route:
    address, _, boot = reader.decode().rpartition("|")
    return Route(address=address, boot=int(boot), handle=int(handle))
