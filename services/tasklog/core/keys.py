"""Redis keys of a task. The braces make one hash slot of them, so a pipeline of one task works in Redis Cluster."""

from typing import Final

CANCEL: Final = "cancel"  # the field of a wish among the readers; no reader has such a name


def log_key(task: str) -> str:
    """The token log: a stream of header, delta and terminal entries."""
    return f"t:{{{task}}}"


def control_key(task: str) -> str:
    """A hash written by the router and the dispatcher: claim, state, tenant, body hash, where the task runs."""
    return f"t:{{{task}}}:ctl"


def readers_key(task: str) -> str:
    """A hash written by gateways: who reads the task live, `<address>|<boot>` to the reader's handle, and a wish to cancel.

    One hash, because a worker asks for both with every write.
    """
    return f"t:{{{task}}}:r"
