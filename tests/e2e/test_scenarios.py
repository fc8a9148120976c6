"""What an operator of the platform does with helm and kubectl, and what must come of it."""

import asyncio
import secrets
import time

import pytest

from services.client import MillraceError, SyncClient
from tests.e2e.crowd import crowd
from tests.e2e.installation import NAMESPACE, Installation, scenario


@scenario("install")
@pytest.mark.parametrize("way", ["ws", "sse", "grpc"])
def test_one_helm_install_on_an_empty_cluster_answers_on_every_transport(installed: Installation, way: str) -> None:
    """Within four minutes of the command when the images are there; through the Services of the cluster."""
    assert installed.first_token_s <= 240
    address = installed.grpc if way == "grpc" else f"http://{installed.gateway}"
    with SyncClient(address, installed.key, transport=way) as client:
        answer = client.generate("Tell of winter", model="tiny", max_tokens=12)
    assert answer.text


@scenario("scale")
async def test_work_makes_pods_and_idle_drains_them_to_zero_and_the_next_prompt_brings_one(
    installed: Installation,
) -> None:
    """WorkerPool simulator: 0 -> more -> 0 -> 1, and the reasons are in the events."""
    quick = '{"spec":{"queue":{"maxSeconds":600},"scaling":{"idleSeconds":5,"hold":{"mode":"Fixed","seconds":5}}}}'
    installed.kubectl("patch", "wp", "simulator", "--type=merge", "-p", quick)
    installed.until(lambda: not installed.pods("simulator"), 150)
    began = time.monotonic()
    async with crowd(installed, "work", 32, model="simulator", tokens=300, rate=15) as readers:
        print(f"\nfrom the first prompt at zero to 32 answers that run: {time.monotonic() - began:.0f} s")
        assert len(await asyncio.to_thread(installed.pods, "simulator")) >= 2
    assert readers.wrong == []
    installed.until(lambda: installed.field("wp/simulator", ".spec.replicas") == "0", 180)
    installed.until(lambda: not installed.pods("simulator"), 90)
    assert installed.ask("again", model="simulator", max_tokens=8, deadline_s=120)
    events = installed.kubectl("get", "events", "--field-selector", "regarding.name=simulator", fails=None)
    assert "FromZero" in events + installed.kubectl("get", "events")


@scenario("worker-deleted")
async def test_a_worker_deleted_in_mid_answer_loses_no_byte(installed: Installation) -> None:
    """Politely or not: the answer goes on elsewhere and is the one that an undisturbed worker gives."""
    for grace in ("--grace-period=300", "--grace-period=0"):
        force = ["--force"] if grace.endswith("=0") else []
        workers = ("pod", "-l", "millrace.dev/pool=simulator")
        async with crowd(installed, grace, 1, model="simulator", tokens=300, rate=25) as readers:
            await asyncio.to_thread(installed.kubectl, "delete", *workers, grace, *force, "--wait=false")
        assert readers.wrong == []


@scenario("kubectl")
def test_kubectl_scales_pauses_waits_explains_and_refuses(installed: Installation) -> None:
    """A pool is an object like any other."""
    installed.kubectl("patch", "wp", "simulator", "--type=merge", "-p", '{"spec":{"scaling":{"mode":"Manual"}}}')
    installed.kubectl("scale", "wp/simulator", "--replicas=2")
    installed.until(lambda: installed.field("wp/simulator", ".status.readyReplicas") == "2", 90)
    installed.kubectl("wait", "--for=condition=Ready", "wp/simulator", "--timeout=30s")
    installed.kubectl("patch", "wp", "simulator", "--type=merge", "-p", '{"spec":{"scaling":{"mode":"Paused"}}}')
    installed.until(lambda: "Paused" in installed.kubectl("get", "wp", "simulator", "-o", "yaml"), 30)
    installed.kubectl("scale", "wp/simulator", "--replicas=1")
    time.sleep(3)
    assert len(installed.pods("simulator")) == 2
    installed.kubectl("patch", "wp", "simulator", "--type=merge", "-p", '{"spec":{"scaling":{"mode":"Auto"}}}')
    assert "head" in installed.kubectl("explain", "wp.spec.scaling").lower()
    refused = installed.kubectl(
        "patch", "wp", "simulator", "--type=merge", "-p", '{"spec":{"scaling":{"minReplicas":9}}}', fails=True
    )
    assert "minReplicas is above maxReplicas" in refused
    assert "SignalFresh" in installed.kubectl("describe", "wp", "simulator")


@scenario("tenant")
def test_a_tenant_works_two_seconds_after_it_was_made_and_is_out_as_soon(installed: Installation) -> None:
    """Key, limit, removal."""
    name, key = (
        f"t{secrets.token_hex(3)}",
        "mr_" + "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz234567") for _ in range(32)),
    )
    policy = {"perTenant": {"requests": {"rate": 3, "periodSeconds": 3600, "burst": 3}}}
    head = {"apiVersion": "millrace.dev/v1alpha1", "metadata": {"name": name}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"key": key}}
    spec = {"keys": [{"name": "k", "secretRef": {"name": name}}], "limitPolicy": name}
    manifests = [secret, {**head, "kind": "LimitPolicy", "spec": policy}, {**head, "kind": "Tenant", "spec": spec}]
    installed.kubectl("apply", "-f", "-", manifest={"apiVersion": "v1", "kind": "List", "items": manifests})
    with SyncClient(f"http://{installed.gateway}", key) as client:

        def said() -> str:
            try:
                client.submit("hello", model="tiny", max_tokens=2)
            except MillraceError as error:
                return error.code
            return "accepted"

        assert installed.until(lambda: said() == "accepted", 10) <= 2.0
        installed.until(lambda: said() == "limited", 10)
        installed.kubectl("delete", "tenant", name)
        assert installed.until(lambda: said() == "unauthenticated", 10) <= 2.0
    installed.kubectl("delete", "secret,limitpolicy", name)


@scenario("rbac")
def test_service_accounts_can_do_what_the_code_does_and_nothing_else(installed: Installation) -> None:
    """Only the operator may ask the API server anything beyond what every account may."""
    for account in installed.kubectl("get", "serviceaccounts", "-o", "name").split():
        name = account.removeprefix("serviceaccount/")
        if name == "default" or "operator" in name:
            continue
        may = installed.kubectl(
            "auth", "can-i", "--list", f"--as=system:serviceaccount:{NAMESPACE}:{name}", "--no-headers"
        )
        granted = [
            line for line in may.splitlines()
            if line.strip() and not line.startswith(("selfsubject", " ")) and "[/" not in line
        ]  # fmt: skip
        assert not granted, f"{name}: {granted}"


@scenario("operator-idle")
def test_an_idle_operator_takes_three_percent_of_a_core_and_128_mib(installed: Installation) -> None:
    """The one that leads, over half a minute in which nobody asks and nothing scales."""
    installed.until(lambda: not installed.pods("simulator"), 150)
    installed.until(installed.operator_leads, 60)
    pod = installed.leader()
    began, before, _ = installed.usage(pod)
    installed.until(lambda: installed.usage(pod)[0] >= began + 30, 90)
    ended, after, memory = installed.usage(pod)
    share = (after - before) / (ended - began)
    print(f"\noperator: {100 * share:.1f} % of a core, {memory:.0f} MiB")
    assert share <= 0.03
    assert memory <= 128
