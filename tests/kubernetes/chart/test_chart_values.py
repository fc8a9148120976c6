"""values.yaml is the one source: the schema and the table of the README are made of it, and refuse what is not there."""

import functools
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from tests.kubernetes.chart.rendering import CHART, OWN, template

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
# What Kubernetes describes and checks by itself.
PASSED_ON = {"affinity"}


@functools.cache
def described() -> set[str]:
    """Each value of values.yaml by its path."""
    values = runpy.run_path(str(CHART / "generate.py"))["values"]
    return {".".join(value.path) for value in values((CHART / "values.yaml").read_text())}


def properties(schema: dict, path: str = "") -> Iterator[tuple[str, dict]]:
    """Every property of the schema with its path, those of shapes that are passed on or typed as a whole left out."""
    for name, each in schema.get("properties", {}).items():
        here = f"{path}.{name}".lstrip(".")
        yield here, each
        yield from properties(each, here)


def test_schema_and_readme_are_made_of_the_values():
    """`python charts/millrace/generate.py` would change nothing."""
    done = subprocess.run(
        [sys.executable, CHART / "generate.py", "--check"], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr


def test_every_value_is_in_the_schema_and_every_property_is_a_value():
    """Nothing but Helm's own `global`, and requests and limits, which are defaults of one value."""
    known = {path for path, _ in properties(SCHEMA) if not path.endswith("global")}
    inside = {path for path in known if path.endswith((".resources.requests", ".resources.limits"))}
    assert known - inside == described()


def test_every_property_is_described():
    """A sentence for each, that ends like one."""
    silent = [path for path, each in properties(SCHEMA) if not re.search(r"[.!?]$", each.get("description", ""))]
    assert not silent


def test_objects_take_only_what_is_named():
    """Each object refuses unknown names, or says of which type its entries are; only what Kubernetes checks is passed on."""
    for path, each in [("", SCHEMA), *properties(SCHEMA)]:
        if each.get("type") == "object" and path.rpartition(".")[2] not in PASSED_ON | {"global"}:
            extra = each["additionalProperties"]
            assert extra is False or extra["type"], path


@pytest.mark.parametrize(
    "path", ["", "gateway", "operator", "gateway.service", "networkPolicy.dns", "dev", "images.digests", "crds"]
)
def test_an_unknown_value_is_refused_by_name(path):
    """Helm names the value and the place, wherever it stands."""
    values: dict = {"sorry": 1}
    for part in reversed([part for part in path.split(".") if part]):
        values = {part: values}
    said = template(OWN | values, fails=True)
    assert f"at '/{path.replace('.', '/')}'".replace("'/'", "''") in said
    assert "'sorry' not allowed" in said


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"gateway": {"replicas": "two"}}, "/gateway/replicas"),
        ({"operator": {"replicas": 3}}, "/operator/replicas"),
        ({"images": {"pullPolicy": "Sometimes"}}, "/images/pullPolicy"),
        ({"images": {"digests": {"gateway": "sha256:12"}}}, "/images/digests/gateway"),
        ({"redis": {"url": "redis://:password@redis:6379/0"}}, "/redis/url"),
        ({"redis": {"url": "rediss://redis:6379/0"}}, "/redis/url"),
        ({"kafka": {"bootstrapServers": "kafka"}}, "/kafka/bootstrapServers"),
        ({"router": {"resources": {"limits": {"memory": "1 GB"}}}}, "/router/resources/limits/memory"),
        ({"cache": {"podLabels": {"a": 1}}}, "/cache/podLabels/a"),
        ({"drainSeconds": 0}, "/drainSeconds"),
        ({"networkPolicy": {"dns": {"ports": []}}}, "/networkPolicy/dns/ports"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(values, place):
    """The message names the place of what is wrong."""
    assert f"at '{place}'" in template(OWN | values, fails=True)


def test_defaults_are_what_the_schema_allows():
    """A render with the defaults written out again is accepted."""
    template(VALUES | OWN)
