"""A real cluster with the chart in it. KUBECONFIG names one of yours; without it `deploy/cluster` brings one up."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.stack.software import ROOT
from tests.e2e.installation import NAMESPACE, Installation
from tests.support.timeouts import own_time_only

EVIDENCE = ROOT / "build" / "e2e"
CLUSTER = ROOT / "deploy" / "cluster" / "cluster"
GISTS = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Scenarios share one installation and take minutes."""
    for item in items:
        wanted = os.environ.get("SCENARIO")
        if wanted and item.get_closest_marker("scenario").args[0] not in re.split(r"[\s,]+", wanted):
            item.add_marker(pytest.mark.skip(reason=f"SCENARIO={wanted}"))
    own_time_only(items, ["installed"], 600)


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    """The caller's cluster, said aloud, or one of our own, gone afterwards."""
    if theirs := os.environ.get("KUBECONFIG"):
        print(f"\nusing the cluster that KUBECONFIG names: {theirs}")
        yield Path(theirs)
        return
    said = subprocess.run([CLUSTER, "up"], check=True, stdout=subprocess.PIPE, text=True).stdout
    yield Path(said.splitlines()[-1])
    if "MILLRACE_E2E_KEEP" not in os.environ:
        subprocess.run([CLUSTER, "down", "--purge"], check=True)


@pytest.fixture(scope="session")
def installed(kubeconfig: Path) -> Iterator[Installation]:
    """Images in the node, `helm install` on the empty cluster, and the seconds from there to the first token."""
    if "KUBECONFIG" not in os.environ:
        subprocess.run([ROOT / "deploy" / "images" / "build", "--load"], check=True)
    it = Installation(kubeconfig)
    with it.evidence(EVIDENCE / "install"):  # no test has it yet, so none would dump it
        it.first_token_s = it.install()
    print(f"\nfrom helm install to the first token: {it.first_token_s:.0f} s")
    yield it
    if "KUBECONFIG" in os.environ and "MILLRACE_E2E_KEEP" not in os.environ:  # ours goes as a whole
        it.kubectl("delete", "wp", "--all", "--timeout=180s", timeout_s=190)  # an operator must let them go
        it.helm("uninstall", "millrace", "--wait")
        it.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What the cluster looked like when a scenario failed: all of it in files, the gist at the end."""
    outcome = yield
    report = outcome.get_result()
    it = getattr(item, "funcargs", {}).get("installed")
    if report.failed and it is not None:
        folder = EVIDENCE / item.name
        item.config.stash.setdefault(GISTS, []).append(f"{item.name}, more in {folder}\n{it.dump(folder)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Just above the summary, where people look first."""
    for gist in config.stash.get(GISTS, []):
        terminalreporter.section("evidence")
        terminalreporter.line(gist)
