"""Which processes a stack has, on which ports, with which commands."""

import pytest

from services.cli.stack.core.blueprint import (
    BlueprintError,
    assign_ports,
    component_of,
    expand,
    fill,
    parse,
)

TEXT = """
[environment]
COMMON = "{redis.port}"

[component.redis]
title = "Redis"
command = ["redis-server", "{self.port}"]
ports = { port = 16379 }
ready = "redis port"

[component.router]
title = "router"
command = ["router"]
count = 2
ports = { calls = 8104, admin = 9104 }
ready = "http admin /readyz"
after = ["redis"]

[component.gateway]
title = "gateway"
command = ["gateway"]
count = 1
ports = { http = 8080, grpc = 8081 }
ready = "http http /"
after = ["redis", "router"]
"""
COMPONENTS, _ = parse(TEXT)


def names(**kwargs: object) -> list[str]:
    return [i.name for i in expand(COMPONENTS, **{"counts": {}, **kwargs})]


def test_only_components_with_a_count_are_numbered():
    """Components with a count are numbered from 1, the others keep their name."""
    assert names() == ["redis", "router-1", "router-2", "gateway-1"]


def test_counts_change_how_many():
    """A count of its own replaces the default, 0 leaves a component out."""
    assert names(counts={"router": 1, "gateway": 3}) == ["redis", "router-1", "gateway-1", "gateway-2", "gateway-3"]
    assert names(counts={"redis": 0, "router": 0}) == ["gateway-1"]


def test_only_keeps_what_they_start_after():
    """`only` brings the grounds of a component, and theirs, and nothing else."""
    assert names(only=["router"]) == ["redis", "router-1", "router-2"]
    assert names(only=["redis"]) == ["redis"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"counts": {"nix": 1}}, "no component 'nix'; there are: redis, router, gateway"),
        ({"only": ["nix"]}, "no component 'nix'; there are: redis, router, gateway"),
        ({"counts": {"redis": 2}}, "there can be only one redis"),
    ],
)
def test_a_wrong_name_or_count_is_named(arguments, said):
    """What does not exist or cannot be is refused with a sentence that says what would do."""
    with pytest.raises(BlueprintError, match=said):
        names(**arguments)


def test_a_component_starts_only_after_those_above_it():
    """An `after` that names something further down, or nothing, is refused: no circles."""
    with pytest.raises(BlueprintError, match="redis starts after gateway"):
        parse(TEXT.replace('ready = "redis port"', 'ready = "redis port"\nafter = ["gateway"]'))


def test_an_unknown_field_is_named():
    """A misspelt field of the components file is refused with the component's name."""
    with pytest.raises(BlueprintError, match=r"component redis.*redy"):
        parse(TEXT.replace('ready = "redis port"', 'redy = "redis port"'))


def test_first_instances_get_their_preferred_ports():
    """A second instance never takes the port that another component prefers."""
    ports = assign_ports(expand(COMPONENTS, {"gateway": 2}), lambda _: True)
    assert ports["gateway-1"] == {"http": 8080, "grpc": 8081}
    assert ports["gateway-2"] == {"http": 8082, "grpc": 8083}
    assert ports["router-2"] == {"calls": 8105, "admin": 9105}


def test_a_taken_port_moves_to_the_next_free_one():
    """Ports that somebody else listens on are passed over."""
    ports = assign_ports(expand(COMPONENTS, {}), lambda port: port not in {8080, 8082, 16379})
    assert ports["gateway-1"] == {"http": 8083, "grpc": 8081}
    assert ports["redis"] == {"port": 16380}


def test_free_ports_are_taken_from_the_start_upwards():
    """With a start, preferences do not matter and no port is given twice."""
    ports = assign_ports(expand(COMPONENTS, {}), lambda port: port != 20001, start=20000)
    given = [port for of_one in ports.values() for port in of_one.values()]
    assert given == [20000, *range(20002, 20008)]


def test_templates_name_ports_addresses_and_values():
    """`self` is the instance, a component's name its first instance, `all` every address."""
    instances = expand(COMPONENTS, {})
    ports = assign_ports(instances, lambda _: True)

    def filled(template: str) -> str:
        return fill(template, instances[-1], ports, {"data": "/d"})

    assert filled("{self} on {self.http}, {data}/x") == "gateway-1 on 8080, /d/x"
    assert filled("redis://127.0.0.1:{redis.port}/0") == "redis://127.0.0.1:16379/0"
    assert filled("{all.router.calls}") == "127.0.0.1:8104,127.0.0.1:8105"
    assert not filled("{all.cache.calls}")
    with pytest.raises(BlueprintError, match=r"{cache\.calls} of gateway-1 names nothing"):
        filled("{cache.calls}")


def test_an_instance_knows_its_component():
    """Only the number at the end is taken off."""
    assert [component_of(n) for n in ("kafka", "gateway-2", "worker-sim-1")] == ["kafka", "gateway", "worker-sim"]
