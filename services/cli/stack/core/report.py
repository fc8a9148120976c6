"""What a stack says about itself: the content of `status.json` and of `millrace status --json`."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from services.cli.stack.core.blueprint import component_of


class State(StrEnum):
    """Of one process, in the order of its life."""

    WAITING = "waiting"  # for what it starts after
    STARTING = "starting"  # runs, not ready yet
    READY = "ready"
    DONE = "done"  # ended well, as it should
    UNREADY = "not ready"  # was ready, does not answer now
    PAUSED = "paused"  # stopped by a signal, for example by `millrace fault`
    BROKEN = "restarting"  # died, waits for its next start
    STOPPING = "stopping"
    STOPPED = "stopped"


GOOD = frozenset({State.READY, State.DONE})


class ComponentStatus(msgspec.Struct, kw_only=True):
    """One process."""

    name: str
    title: str
    state: State = State.WAITING
    pid: int = 0
    started_ticks: int = 0  # kernel start time of pid: tells it from a later process with the same number
    ports: dict[str, int] = {}
    restarts: int = 0
    since: float = 0.0  # Unix seconds of the last start
    log: str = ""
    message: str = ""  # why it is not ready, for people


class StackStatus(msgspec.Struct, kw_only=True):
    """All of it. Readers find addresses here, never by guessing ports."""

    data: str
    pid: int
    state: State
    page: str  # URL that opens the playground signed in
    key: str  # the local API key
    components: list[ComponentStatus]

    def named(self, name: str) -> list[ComponentStatus]:
        """The instance of this name, or all instances of the component of this name. Raises KeyError."""
        found = [c for c in self.components if name in {c.name, component_of(c.name)}]
        if not found:
            raise KeyError(f"no component {name!r}; there are: {', '.join(c.name for c in self.components)}")
        return found

    def addresses(self, component: str, port: str) -> list[str]:
        """`127.0.0.1:8080` and so on, of all instances of a component."""
        return [f"127.0.0.1:{c.ports[port]}" for c in self.components if component_of(c.name) == component]


def missing(components: Sequence[ComponentStatus]) -> list[ComponentStatus]:
    """Those that are not (or no longer) as they should be."""
    return [c for c in components if c.state not in GOOD]
