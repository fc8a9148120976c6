"""What a stack says about itself."""

import pytest

from services.cli.stack.core.report import ComponentStatus, StackStatus, State, missing
from services.cli.stack.table import headline, uptime


def stack(*components: ComponentStatus) -> StackStatus:
    return StackStatus(
        data="/d",
        pid=1,
        state=State.READY,
        page="http://127.0.0.1:8080/#key=mr_x",
        key="mr_x",
        components=[*components],
    )


def one(name: str, state: State = State.READY, **ports: int) -> ComponentStatus:
    return ComponentStatus(name=name, title=name, state=state, ports=ports)


def test_a_name_finds_an_instance_or_all_of_a_component():
    """`worker-1` is one process, `worker` all of them, and `worker` is not `worker-sim`."""
    status = stack(one("worker-1"), one("worker-2"), one("worker-sim-1"))
    assert [c.name for c in status.named("worker-1")] == ["worker-1"]
    assert [c.name for c in status.named("worker")] == ["worker-1", "worker-2"]
    with pytest.raises(KeyError, match="no component 'nix'; there are: worker-1, worker-2, worker-sim-1"):
        status.named("nix")


def test_addresses_come_from_the_ports():
    """All instances' addresses, in order."""
    status = stack(one("gateway-1", http=8080), one("gateway-2", http=8083), one("redis", port=1))
    assert status.addresses("gateway", "http") == ["127.0.0.1:8080", "127.0.0.1:8083"]


def test_ready_and_done_are_good():
    """Whatever is neither ready nor well ended is missing."""
    components = [one("a"), one("b", State.DONE), one("c", State.PAUSED), one("d", State.BROKEN)]
    assert [c.name for c in missing(components)] == ["c", "d"]


def test_the_headline_of_a_ready_stack_is_its_page():
    """The URL that opens signed in stands alone, with the key in the fragment."""
    assert headline(stack()).plain == "Ready. Open  http://127.0.0.1:8080/#key=mr_x"


def test_uptimes_are_short():
    """Seconds, minutes or hours, whatever is large enough."""
    assert [uptime(s) for s in (7, 754, 90000)] == ["7s", "12m34s", "25h00m"]
