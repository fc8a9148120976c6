"""Ports that nobody listens on.

They are looked for below the range that the kernel gives to outgoing connections: a port from that range could be somebody's
source port at the moment when a process that was killed wants to listen on it again.
"""

import random
import socket

LOWEST, HIGHEST = 20000, 31000


def is_free(port: int) -> bool:
    """Could a server listen here now? Connections of an earlier one that are still closing do not matter."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def somewhere() -> int:
    """Where to begin to look, different each time: several stacks may look at once."""
    return random.SystemRandom().randrange(LOWEST, HIGHEST)


def free_port(start: int | None = None) -> int:
    """The first free port from `start` upwards."""
    port = somewhere() if start is None else start
    while not is_free(port):
        port += 1
    return port
