"""Redis keys of a task. The braces make one hash slot of them, so a pipeline of one task works in Redis Cluster."""


def log_key(task: str) -> str:
    """The token log: a stream of header, delta and terminal entries."""
    return f"t:{{{task}}}"


def control_key(task: str) -> str:
    """A hash written by the router and the dispatcher: claim, state, tenant, body hash, where the task runs."""
    return f"t:{{{task}}}:ctl"


def routes_key(task: str) -> str:
    """A hash written by gateways: who reads the task live, `<address>|<boot>` to the reader's handle."""
    return f"t:{{{task}}}:r"


def wishes_key(task: str) -> str:
    """A hash written by gateways: `cancel` (the truth about a wish to cancel) and `seen`."""
    return f"t:{{{task}}}:x"
