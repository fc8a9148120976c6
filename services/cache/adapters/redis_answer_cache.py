"""Answers and flights in Redis. Both keys of an answer share a hash slot; each question is one script call.

`cache:{<key>}:answer` = when it was stored (8 bytes, IEEE double, Unix s), then the answer; expires with its keep.
`cache:{<key>}:flight` = rank, fence, task of the leader; expires when its time to lead is over.
"""

import struct
from collections.abc import Sequence
from hashlib import sha1
from typing import Any, Final

import hiredis

from services.cache.core.flight import Join, Lead
from services.cache.core.lookup import Ask, Found, Hit
from services.cache.ports import Ending
from services.chassis.resp import Arg, RedisAwayError, Resp

# core.flight.meet, where nobody can come between. ARGV: rank, fence, task, milliseconds.
_LOOK: Final = """
local answer = redis.call('GET', KEYS[1])
if answer then return {'hit', answer} end
local flight = redis.call('GET', KEYS[2])
if flight then
  local rank, fence, task = string.match(flight, '^(%d+) (%S*) (%S+)$')
  if tonumber(rank) <= tonumber(ARGV[1]) then
    if task == ARGV[3] then return {'lead', fence} end
    return {'join', task}
  end
end
redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3], 'PX', ARGV[4])
return {'lead', ARGV[2]}
"""
# core.flight.may_store. ARGV: fence, milliseconds, answer (empty: none).
_END: Final = """
local flight = redis.call('GET', KEYS[2])
local fence = flight and string.match(flight, '^%d+ (%S*) ')
if flight and fence ~= ARGV[1] and ARGV[1] ~= '' then return 0 end
if flight and fence == ARGV[1] then redis.call('DEL', KEYS[2]) end
if ARGV[3] == '' then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
return 1
"""
_STORED_AT: Final = struct.Struct(">d")


class RedisAnswerCache:
    """All cache replicas share it."""

    def __init__(self, redis: Resp) -> None:
        self._redis = redis

    async def look(self, asks: Sequence[Ask], now: float) -> list[Found]:
        """See ports."""
        replies = await self._call(
            _LOOK, [(ask.key, (ask.asker.rank, ask.asker.fence, ask.asker.task, _ms(ask.lead_s))) for ask in asks]
        )
        return [_found(*reply) for reply in replies]

    async def end(self, endings: Sequence[Ending], now: float) -> list[bool]:
        """See ports."""
        calls: list[tuple[bytes, tuple[Arg, ...]]] = []
        for ending in endings:
            value = b"" if ending.answer is None else _STORED_AT.pack(now) + ending.answer
            calls.append((ending.key, (ending.fence, _ms(ending.keep_s), value)))
        return [reply == 1 for reply in await self._call(_END, calls)]

    async def _call(self, script: str, calls: Sequence[tuple[bytes, tuple[Arg, ...]]]) -> list[Any]:
        """Run the script for each key in one pipeline, and send its text once if Redis does not know it."""
        digest = sha1(script.encode(), usedforsecurity=False).hexdigest()
        arguments = [(2, *_keys(key), *values) for key, values in calls]
        replies = await self._redis.pipe(*(("EVALSHA", digest, *rest) for rest in arguments))
        unknown = [i for i, reply in enumerate(replies) if _is_error(reply, "NOSCRIPT")]
        again = await self._redis.pipe(*(("EVAL", script, *arguments[i]) for i in unknown))
        for i, reply in zip(unknown, again, strict=True):
            replies[i] = reply
        for reply in replies:
            if _is_error(reply):  # full, loading, read-only
                raise RedisAwayError(str(reply))
        return replies


def _keys(key: bytes) -> tuple[str, str]:
    return f"cache:{{{key.hex()}}}:answer", f"cache:{{{key.hex()}}}:flight"


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000), 1)


def _is_error(reply: Any, code: str = "") -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(code)


def _found(what: bytes, value: bytes) -> Found:
    match what:
        case b"hit":
            return Hit(value[_STORED_AT.size :], _STORED_AT.unpack_from(value)[0])
        case b"join":
            return Join(value.decode())
        case _:
            return Lead(value.decode())
