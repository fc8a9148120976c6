"""What a Redis reply means for a task's keys."""

from typing import Any, Final

import hiredis

from services.chassis.resp import Command, RedisAwayError

# Redis is there and will take the write later: while it starts, fails over, is full, or cannot write its own file.
_LATER: Final = (
    "LOADING",
    "READONLY",
    "OOM",
    "MISCONF",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "NOREPLICAS",
)


def checked(reply: Any) -> Any:
    """The reply, unless it is an error. Raises RedisAwayError for what will pass, hiredis.ReplyError for a mistake of ours."""
    if isinstance(reply, hiredis.ReplyError):
        if str(reply).startswith(_LATER):
            raise RedisAwayError(str(reply))
        raise reply
    return reply


def milliseconds(seconds: float) -> int:
    """For PEXPIRE: at least one, since zero would delete the key."""
    return max(round(seconds * 1000), 1)


def keep_at_least(key: str, keep_s: float) -> tuple[Command, Command]:
    """Let a key live `keep_s` seconds from now and never shorten its life: one for a key without an end, one for the others."""
    return ("PEXPIRE", key, milliseconds(keep_s), "NX"), ("PEXPIRE", key, milliseconds(keep_s), "GT")
