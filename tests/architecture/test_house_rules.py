"""Rules that hold for the whole repository."""

import ast
import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.chassis.settings import ServiceSettings, describe, variables
from services.cli.stack.core.blueprint import Component, parse
from services.cli.stack.software import LOCAL, ROOT

SERVICES = sorted(
    path.parent.name for path in (ROOT / "services").glob("*/settings.py") if path.parent.name != "chassis"
)
COMPONENTS, COMMON = parse((LOCAL / "components.toml").read_text())
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def settings_of(service: str) -> type[ServiceSettings]:
    """The one settings class of a service."""
    module = importlib.import_module(f"services.{service}.settings")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ServiceSettings) and value is not ServiceSettings
    ]
    assert len(found) == 1
    return found[0]


def run(*command: str | Path) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_imports_point_inwards_and_services_are_strangers():
    """All contracts of `.importlinter` hold."""
    run(Path(sys.executable).parent / "lint-imports")


def test_the_generated_protos_are_current():
    """`make protos` would change nothing."""
    run(sys.executable, "protos/generate.py", "--check")


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_says_what_it_turns(service):
    """Each field of each service has a reason in its annotation, and its default is printable."""
    for name, _, _, reason in describe(settings_of(service)()):
        assert reason, f"{service}.{name} has no reason"


def service_components() -> Iterator[tuple[str, Component]]:
    for component in COMPONENTS:
        module = component.command[2] if component.command[:2] == ("{python}", "-m") else ""
        if module.startswith("services.") and not module.startswith("services.cli"):
            yield module.removeprefix("services."), component


@pytest.mark.parametrize(("service", "component"), [pytest.param(s, c, id=c.name) for s, c in service_components()])
def test_the_stack_sets_only_what_exists(service, component):
    """Every variable that the components file gives to a service is one of its settings."""
    known = set(variables(settings_of(service), service))
    given = {name for name in [*component.environment, *COMMON] if name.startswith("MILLRACE_")}
    assert given <= known, f"unknown: {sorted(given - known)}"


def test_nothing_shadows_the_standard_library():
    """`operator/` is an import root, not a package: with an `__init__.py` it would replace the standard module."""
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_test_files_have_names_of_their_own():
    """One word finds one file."""
    repeated = [name for name, count in Counter(path.name for path in TESTS).items() if count > 1]
    assert not repeated


def test_every_test_claims_something():
    """The first line of each test's docstring is its claim."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent
