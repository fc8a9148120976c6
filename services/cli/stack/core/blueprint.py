"""From the components file to the processes to run: instances with their names, ports, commands and environments.

components = parse(text)
instances = expand(components, {"worker": 3}, only=())
ports = assign_ports(instances, is_free)
fill("{all.router.calls}", ...)            # "127.0.0.1:8104"
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class BlueprintError(ValueError):
    """The components file, a count or a name does not fit; the message says which and what would."""


@dataclass(frozen=True, slots=True)
class Component:
    """One entry of the components file; its comments say what each field means."""

    name: str
    title: str
    command: tuple[str, ...]
    ready: str
    ports: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    alive: str = ""
    count: int | None = None
    stop_s: float = 8.0
    nice: int = 0

    @property
    def ends(self) -> bool:
        """Does its work and exits, instead of staying."""
        return self.ready == "exit"


@dataclass(frozen=True, slots=True)
class Instance:
    """One process: the component and its number there, None where there is only ever one."""

    component: Component
    number: int | None

    @property
    def name(self) -> str:
        """`kafka`, `gateway-2`."""
        return self.component.name if self.number is None else f"{self.component.name}-{self.number}"


Ports = Mapping[str, Mapping[str, int]]  # by instance name, then port name


def parse(text: str) -> tuple[list[Component], dict[str, str]]:
    """The components in file order, and the environment common to all. Raises BlueprintError."""
    content = tomllib.loads(text)
    components = [_component(name, entry) for name, entry in content["component"].items()]
    known = set[str]()
    for component in components:
        if unknown := set(component.after) - known:
            raise BlueprintError(f"{component.name} starts after {', '.join(sorted(unknown))}, which is not above it")
        known.add(component.name)
    return components, content["environment"]


def _component(name: str, entry: dict[str, Any]) -> Component:
    lists = {key: tuple(entry.get(key, ())) for key in ("command", "after", "needs")}
    try:
        return Component(name=name, **(entry | lists))
    except TypeError as wrong:
        raise BlueprintError(f"component {name}: {wrong}") from None


def expand(components: Sequence[Component], counts: Mapping[str, int], only: Sequence[str] = ()) -> list[Instance]:
    """All instances, in file order. `only` keeps the named components and what they start after. Raises BlueprintError.

    `counts={"gateway": 1}` gives `gateway-1`; 0 leaves a component out, and those that come after it do not wait for it.
    """
    by_name = {c.name: c for c in components}
    for name in [*counts, *only]:
        if name not in by_name:
            raise BlueprintError(f"no component {name!r}; there are: {', '.join(by_name)}")
    for name, count in counts.items():
        if by_name[name].count is None and count not in {0, 1}:
            raise BlueprintError(f"there can be only one {name}")
    wanted = _with_their_grounds(by_name, only) if only else set(by_name)
    instances = list[Instance]()
    for component in components:
        if component.name in wanted:
            count = counts.get(component.name, component.count if component.count is not None else 1)
            numbers: Sequence[int | None] = range(1, count + 1) if component.count is not None else [None] * count
            instances += [Instance(component, number) for number in numbers]
    return instances


def _with_their_grounds(by_name: Mapping[str, Component], only: Sequence[str]) -> set[str]:
    wanted = set[str]()
    waiting = list(only)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += by_name[name].after
    return wanted


def assign_ports(
    instances: Sequence[Instance], is_free: Callable[[int], bool], start: int | None = None
) -> dict[str, dict[str, int]]:
    """A port for each port of each instance: the preferred one, or the next that is free and nobody here prefers.

    With `start`, preferences are ignored and ports are taken from there upwards (several stacks on one machine).
    """
    preferred = {port for i in instances for port in i.component.ports.values()} if start is None else set[int]()
    taken = set[int]()
    assigned = dict[str, dict[str, int]]()
    for instance in instances:
        ports = assigned[instance.name] = {}
        for name, wish in instance.component.ports.items():
            port = wish if start is None else start
            while port in taken or (port != wish and port in preferred) or not is_free(port):
                port += 1
            taken.add(port)
            ports[name] = port
    return assigned


_REFERENCE = re.compile(r"\{([a-z_]+(?:[.-][a-z_]+)*)\}")


def fill(template: str, instance: Instance, ports: Ports, values: Mapping[str, str]) -> str:
    """Replace every `{...}` of a template. Raises BlueprintError for a name that means nothing.

    `{self}` instance name, `{self.http}` own port, `{redis.port}` port of the first instance of a component, `{all.router.calls}`
    all addresses of a component's port (empty when there is none), anything else from `values`.
    """

    def resolve(match: re.Match[str]) -> str:
        reference = match[1]
        if reference in values:
            return values[reference]
        head, _, rest = reference.partition(".")
        if head == "self":
            return str(ports[instance.name][rest]) if rest else instance.name
        if head == "all":
            name, _, port = rest.partition(".")
            return ",".join(f"127.0.0.1:{p[port]}" for i, p in ports.items() if component_of(i) == name)
        for name, of_instance in ports.items():
            if component_of(name) == head and rest in of_instance:
                return str(of_instance[rest])
        raise BlueprintError(f"{{{reference}}} of {instance.name} names nothing that runs in this stack")

    return _REFERENCE.sub(resolve, template)


def component_of(instance: str) -> str:
    """`gateway-2` is a `gateway`; `worker-sim-1` is a `worker-sim`."""
    return re.sub(r"-\d+$", "", instance)
