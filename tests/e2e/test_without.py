"""What is left when a part is away, or all of it. Runs last: the release goes and comes back, with stores that outlive a pod."""

import asyncio
import os
import signal

import pytest

from millrace_operator.core.definitions import definitions
from tests.e2e.crowd import crowd
from tests.e2e.installation import Installation, scenario

SILENT_S = 25  # a node whose lease is not renewed for 40 s counts as lost


@pytest.fixture(scope="module")
def lasting(installed: Installation) -> Installation:
    """The release, with Kafka and Redis that keep their data in claims."""
    if installed.field("statefulset/millrace-dev-kafka", ".spec.volumeClaimTemplates") == "":
        installed.helm("uninstall", "millrace", "--wait")
        installed.install(dev__persistence__enabled=True)
    return installed


@scenario("api-server")
async def test_requests_flow_without_an_api_server_and_the_operator_waits_for_it(installed: Installation) -> None:
    """Half a minute of silence: answers run and prompts are taken, nothing restarts, and then there is a leader again."""
    server = installed.api_server()
    if server is None:
        pytest.skip("whose cluster this is keeps its API server")
    before = installed.restarts()
    with installed.client() as client:
        async with crowd(installed, "without an API server", 20, model="simulator", tokens=600, rate=15) as running:
            os.kill(server, signal.SIGSTOP)
            try:
                for number in range(SILENT_S):
                    prompt = f"is anybody there? {number}"
                    answer = await asyncio.to_thread(client.generate, prompt, model="tiny", max_tokens=4)
                    assert answer.text
                    await asyncio.sleep(1)
            finally:
                os.kill(server, signal.SIGCONT)
    assert running.wrong == []
    assert running.killed == 0
    await asyncio.to_thread(installed.until, installed.operator_leads, 60)
    assert installed.restarts() == before


@scenario("uninstall")
def test_helm_uninstall_leaves_definitions_and_what_people_declared(installed: Installation) -> None:
    """And their workers; the next install takes them over and answers."""
    installed.helm("uninstall", "millrace", "--wait")
    for crd in definitions():
        assert installed.field(f"crd/{crd}", ".metadata.name") == crd
    assert installed.field("wp/tiny", ".metadata.name") == "tiny"
    assert installed.pods("tiny")
    mine = "deployments,statefulsets,services,configmaps,secrets,serviceaccounts,roles,rolebindings"
    assert installed.get(mine, "-l", "app.kubernetes.io/instance=millrace")["items"] == []
    installed.install(dev__persistence__enabled=True)
    assert installed.ask("back again", max_tokens=4)


@scenario("stores")
@pytest.mark.parametrize("store", ["kafka", "redis"])
async def test_a_store_killed_under_load_loses_nothing(lasting: Installation, store: str) -> None:
    """Answers that run come to their end; prompts handed in meanwhile are refused with an advice, or accepted and answered."""
    async with crowd(lasting, f"without {store}", 20, model="simulator", tokens=300, rate=15) as running:
        killed = ("delete", "pod", f"millrace-dev-{store}-0", "--grace-period=0", "--force")
        await asyncio.to_thread(lasting.kubectl, *killed)
        async with crowd(lasting, f"handed in without {store}", 20, model="simulator", tokens=50, rate=50) as late:
            pass
    print(f"\n{store} killed: {len(running.streams)} running answers, {running.killed} generations begun anew")
    assert running.wrong == []
    assert late.wrong == []
