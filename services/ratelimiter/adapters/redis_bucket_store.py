"""Buckets in Redis, taken from by one script call per batch, on the server's clock.

Key `limit:<name>`, value = the theoretical arrival time in Unix seconds, gone once the bucket is full again. Names carry
their tenant in braces, so all buckets of one request share a hash slot: in Redis Cluster a batch is split by tenant, and
nothing else changes.
"""

from collections.abc import Sequence
from typing import Any, Final

import hiredis

from services.chassis.resp import RedisAwayError, Resp
from services.limits.core.gcra import RESOLUTION_S
from services.limits.core.request import Bucket, Decision, decide, refuse

# The arithmetic of services/limits/core, operation by operation, so both sides round alike. ARGV: for each request the
# number of its buckets, then for each of them: index into KEYS, interval, burst, cost. Reply: seconds and microseconds of
# the clock, then for each request the arrival times it met and the position of the bucket that refused it (0: none).
_SCRIPT: Final = f"""
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local tat, text, changed = {{}}, {{}}, {{}}
for i, key in ipairs(KEYS) do
  text[i] = redis.call('GET', key) or '0'
  tat[i] = tonumber(text[i])
end
local reply, at = {{time[1], time[2]}}, 1
while ARGV[at] do
  local count, refused, taken = tonumber(ARGV[at]), 0, {{}}
  for n = 1, count do
    local base = at + (n - 1) * 4
    local key, interval = tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])
    local burst, cost = tonumber(ARGV[base + 3]), tonumber(ARGV[base + 4])
    reply[#reply + 1] = text[key]
    if refused == 0 then
      local after = math.max(taken[key] or tat[key], now) + cost * interval
      if cost <= burst and after - burst * interval - now <= {RESOLUTION_S!r} then taken[key] = after else refused = n end
    end
  end
  reply[#reply + 1] = refused
  if refused == 0 then
    for key, after in pairs(taken) do
      tat[key], text[key], changed[key] = after, string.format('%.17g', after), true
    end
  end
  at = at + 1 + count * 4
end
for key in pairs(changed) do
  local left = math.ceil((tat[key] - now) * 1000)
  if left > 0 then redis.call('SET', KEYS[key], text[key], 'PX', left + 1000) end
end
return reply
"""


class RedisBucketStore:
    """All limiter replicas share it."""

    def __init__(self, redis: Resp) -> None:
        self._redis = redis

    async def decide(self, requests: Sequence[Sequence[Bucket]]) -> list[Decision]:
        """See ports."""
        index: dict[str, int] = {}
        arguments: list[str | int] = []
        for buckets in requests:
            arguments.append(len(buckets))
            for bucket in buckets:
                key = index.setdefault(bucket.name, len(index) + 1)
                limit = bucket.limit
                arguments += (key, repr(limit.interval_s), repr(float(limit.burst)), repr(float(bucket.cost)))
        keys = [f"limit:{name}" for name in index]
        try:
            # The whole text, not its hash: Redis knows it after the first call, and one is sent for a batch, not a request.
            reply = await self._redis.call("EVAL", _SCRIPT, len(keys), *keys, *arguments)
        except hiredis.ReplyError as reason:  # full, loading, read-only
            raise RedisAwayError(str(reason)) from reason
        return _decisions(requests, reply)


def _decisions(requests: Sequence[Sequence[Bucket]], reply: list[Any]) -> list[Decision]:
    now = int(reply[0]) + int(reply[1]) / 1e6
    decisions, at = [], 2
    for buckets in requests:
        # Equal names met equal times, so a later one of the same name does not change the value.
        tats = {bucket.name: float(reply[at + i]) for i, bucket in enumerate(buckets)}
        at += len(buckets)
        refused = reply[at]
        at += 1
        decisions.append(refuse(buckets, tats, now, refused - 1) if refused else decide(buckets, tats, now)[0])
    return decisions
