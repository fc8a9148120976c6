"""Who may talk to whom, and what the operator may do: the tables here against what the chart makes."""

import re

import msgspec
import pytest
import yaml

from millrace_operator.adapters.kube_cluster import KINDS
from millrace_operator.core.desired import Installation, objects
from millrace_operator.core.schema import WorkerPool
from millrace_operator.leadership import LEASE
from millrace_operator.publishing import REPORTED
from millrace_operator.store import OURS
from services.cli.stack.software import ROOT
from tests.kubernetes.chart.rendering import COMPONENTS, NAMESPACE, SWITCHES, find, identity, render, workloads

# From, to, port. What is not here is cut.
INSIDE = {
    ("gateway", "ratelimiter", 8101),
    ("gateway", "cache", 8102),
    ("gateway", "router", 8104),
    ("gateway", "dispatcher", 8105),
    ("router", "dispatcher", 8105),
    ("dispatcher", "cache", 8102),
    ("worker", "gateway", 8082),
    ("worker", "dispatcher", 8105),
    ("worker", "cache", 8102),
    ("operator", "dispatcher", 8105),
    ("operator", "worker", 9106),
}
REDIS = {"gateway", "ratelimiter", "cache", "router", "dispatcher", "worker", "operator"}
KAFKA = {"router", "dispatcher", "worker", "operator"}
STORES = {(name, "dev-redis", 6379) for name in REDIS} | {(name, "dev-kafka", 9092) for name in KAFKA}
OPEN = {("anyone", "gateway", 8080), ("anyone", "gateway", 8081)}
ADMIN = {
    "gateway": 9080,
    "ratelimiter": 9101,
    "cache": 9102,
    "router": 9104,
    "dispatcher": 9105,
    "operator": 9107,
    "worker": 9106,
}
# A word in a main.py, and whom the process calls with it.
CALLS = {
    "settings.redis_url": "redis",
    "settings.kafka_bootstrap": "kafka",
    "settings.limiter_addresses": "ratelimiter",
    "settings.cache_addresses": "cache",
    "settings.router_addresses": "router",
    "OwnerLookup(": "dispatcher",
    "FramedFramePublisher(": "gateway",
    "WorkerDrains(": "worker",
}

CUSTOM = {"workerpools", "modelroutes", "tenants", "limitpolicies"}
ALWAYS = {
    **{("millrace.dev", kind): {"list", "watch"} for kind in CUSTOM},
    ("millrace.dev", "workerpools"): {"list", "watch", "patch"},
    ("millrace.dev", "workerpools/scale"): {"patch"},
    **{("millrace.dev", f"{kind}/status"): {"patch"} for kind in CUSTOM},
    ("millrace.dev", "workerpools/finalizers"): {"update"},
    ("apps", "deployments"): {"get", "list", "watch", "create", "patch"},
    ("apps", "deployments/scale"): {"patch"},
    ("", "configmaps"): {"list", "watch", "create", "patch"},
    ("", "services"): {"create", "patch"},
    ("policy", "poddisruptionbudgets"): {"create", "patch"},
    ("", "pods"): {"list", "watch", "patch"},
    ("", "secrets"): {"list", "watch"},
    ("events.k8s.io", "events"): {"create"},
    ("coordination.k8s.io", "leases"): {"create"},
    ("coordination.k8s.io", "leases", LEASE): {"get", "update"},
}
LEDGER = "millrace-samples-applied"
SAMPLES = {("millrace.dev", kind): {"create"} for kind in CUSTOM} | {("", "configmaps", LEDGER): {"get"}}


def policies(switch):
    """The network policies of a render, without the one that denies everything."""
    found = [each for each in render(SWITCHES[switch]) if each["kind"] == "NetworkPolicy"]
    return {identity(each): each["spec"] for each in found if not each["metadata"]["name"].endswith("default-deny")}


def component_of(selector):
    """Which pods a selector means."""
    if "matchExpressions" in selector:
        assert selector == {"matchExpressions": [{"key": "millrace.dev/pool", "operator": "Exists"}]}
        return "worker"
    return selector["matchLabels"]["app.kubernetes.io/component"]


def edges(switch, direction):
    """Each connection that the policies let through, as seen from one of its ends."""
    found = set()
    for spec in policies(switch).values():
        here = component_of(spec["podSelector"])
        for rule in spec[direction]:
            peers = rule.get("from" if direction == "ingress" else "to", [None])
            for peer in peers:
                there = component_of(peer["podSelector"]) if peer and "podSelector" in peer else "anyone"
                for port in rule["ports"]:
                    found.add((here, there, port["port"]) if direction == "egress" else (there, here, port["port"]))
    return found


def test_the_way_in_is_what_the_table_says():
    """Ingress of every pod, the two ports of the gateway open to anyone, the admin ports to whoever scrapes."""
    scraped = {("anyone", name, port) for name, port in ADMIN.items()} | {("anyone", "worker", 8002)}
    assert edges("network-policy-dev", "ingress") == INSIDE | STORES | OPEN | scraped
    assert edges("network-policy", "ingress") == INSIDE | OPEN


def test_the_way_out_is_what_the_table_says():
    """Egress of every pod: the same connections from their other end, name servers, and the API server for the operator."""
    everyone = {*ADMIN, "dev-kafka", "dev-redis"}
    names = {(name, "anyone", 53) for name in everyone}
    api = {("operator", "anyone", 443), ("operator", "anyone", 6443)}
    assert edges("network-policy-dev", "egress") == INSIDE | STORES | names | api
    outside = {(name, "anyone", 6379) for name in REDIS} | {(name, "anyone", 9092) for name in KAFKA}
    names = {(name, "anyone", 53) for name in ADMIN}
    assert edges("network-policy", "egress") == INSIDE | outside | names | api


def test_peers_of_the_values_narrow_what_is_open():
    """Clients, scrapers, name servers, stores and the API server are held to the peers that are named."""
    for direction, key in (("ingress", "from"), ("egress", "to")):
        for spec in policies("network-policy-peers").values():
            assert all(rule.get(key) for rule in spec[direction])


@pytest.mark.parametrize("service", [*COMPONENTS, "worker"])
def test_the_table_is_what_the_code_calls(service):
    """Whom a main.py connects to is whom the process may reach."""
    folder = ROOT / "operator" / "millrace_operator" if service == "operator" else ROOT / "services" / service
    main = (folder / "main.py").read_text()
    called = {target for word, target in CALLS.items() if word in main}
    table = {to.removeprefix("dev-") for source, to, _ in INSIDE | STORES if source == service}
    assert table == called | ({"cache"} if "service.settings.cache_addresses" in main else set())


def test_everything_else_is_denied():
    """A policy without rules selects every pod of the release; every policy, that of workers too, is of both directions."""
    deny = find(render(SWITCHES["network-policy"]), "NetworkPolicy", "millrace-default-deny")["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert deny.keys() == {"podSelector", "policyTypes"}
    for name, each in workloads(render(SWITCHES["network-policy"])).items():
        assert deny["podSelector"]["matchLabels"].items() <= each["spec"]["template"]["metadata"]["labels"].items(), (
            name
        )
    assert all(spec["policyTypes"] == ["Ingress", "Egress"] for spec in policies("network-policy").values())


def granted(role):
    """What a role allows, by group and resource, and by name where it says one."""
    found: dict = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for name in rule.get("resourceNames", [None]):
                    found.setdefault((group, resource, name) if name else (group, resource), set()).update(
                        rule["verbs"]
                    )
    return found


def test_the_operator_may_do_what_the_table_says_and_nothing_else():
    """In the release's namespace; with samples it may create them."""
    assert granted(find(render(SWITCHES["default"]), "Role", "millrace-operator")) == ALWAYS
    with_samples = {key: ALWAYS.get(key, set()) | SAMPLES.get(key, set()) for key in ALWAYS | SAMPLES}
    assert granted(find(render(SWITCHES["dev"]), "Role", "millrace-operator")) == with_samples
    assert [each["metadata"]["name"] for each in render(SWITCHES["dev"]) if each["kind"] == "Role"] == [
        "millrace-operator"
    ]


def test_in_the_cluster_it_only_reads_definitions():
    """Those of Millrace, by name."""
    assert granted(find_cluster_role()) == {
        ("apiextensions.k8s.io", "customresourcedefinitions", f"{kind}.millrace.dev"): {"get"} for kind in CUSTOM
    }


def test_the_table_is_what_the_operator_asks_for():
    """Every call of its code on the API server is allowed, and nothing is allowed that no call needs."""
    needed: dict = {("millrace.dev", "workerpools/finalizers"): {"update"}}  # in an ownerReference, not in a call

    def need(kind, *verbs, part=""):
        where = KINDS[kind]
        key = (where.group, where.plural + part)
        name = {"Lease": LEASE, "ConfigMap": LEDGER}.get(kind)  # whoever knows the name needs no other one
        for verb in verbs:
            named = name is not None and verb in {"get", "update"}
            needed.setdefault((*key, name) if named else key, set()).add(verb)

    for kind, where in KINDS.items():
        if where.watched is not None:
            need(kind, "list", "watch")
    for path in (ROOT / "operator" / "millrace_operator").glob("*.py"):
        text = path.read_text()
        calls = re.findall(r"cluster\.(\w+)\(\s*\"(\w+)\"", text)
        gets = re.findall(r"cluster\.get\((?!kind, key\))", text)  # but for those who hand on what they are asked
        assert sum(call == "get" for call, _ in calls) == len(gets), f"{path} does not say which kind"
        for call, kind in calls:
            verb = {"scale": "patch", "apply_status": "patch"}.get(call, call)
            need(kind, verb, part={"scale": "/scale", "apply_status": "/status"}.get(call, ""))
        if "cluster.apply(" in text:
            for kind in re.findall(r"\"kind\": \"(\w+)\"", text):
                need(kind, "create", "patch")
    for kind in REPORTED:
        need(kind, "patch", part="/status")
    owner = {"apiVersion": "", "kind": "", "metadata": {"namespace": "", "name": "", "uid": ""}}
    pool = msgspec.convert(
        {
            "apiVersion": "millrace.dev/v1alpha1",
            "kind": "WorkerPool",
            "metadata": {"name": "p"},
            "spec": {"model": {"name": "m"}},
        },
        WorkerPool,
    )
    for each in objects(pool, owner, Installation(worker_image="", engine_image="")):
        need(each["kind"], "create", "patch")
    need("Lease", "create", "update")
    need("Event", "create")
    for kind in OURS:  # the samples
        need(kind, "create")
    assert needed == {key: ALWAYS.get(key, set()) | SAMPLES.get(key, set()) for key in ALWAYS | SAMPLES}


def find_cluster_role():
    (role,) = [each for each in render(SWITCHES["default"]) if each["kind"] == "ClusterRole"]
    return role


@pytest.mark.parametrize("switch", SWITCHES)
def test_only_the_operator_has_rights_and_a_token(switch):
    """Every binding is the operator's, every pod has an account of its own, and only the operator's brings its token."""
    objects = render(SWITCHES[switch])
    for each in objects:
        if each["kind"] in {"RoleBinding", "ClusterRoleBinding"}:
            (subject,) = each["subjects"]
            assert (subject["name"], subject["namespace"]) == ("millrace-operator", NAMESPACE)
    accounts = {each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"}
    assert all(each["automountServiceAccountToken"] is False for each in objects if each["kind"] == "ServiceAccount")
    for name, workload in workloads(objects).items():
        pod = workload["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == name
        assert pod["automountServiceAccountToken"] is (name == "millrace-operator")
    assert accounts == {*workloads(objects), "millrace-worker"}


def test_no_rule_has_a_star():
    """Neither verbs nor resources nor groups."""
    roles = [
        each for switch in SWITCHES for each in render(SWITCHES[switch]) if each["kind"] in {"Role", "ClusterRole"}
    ]
    assert "*" not in yaml.safe_dump([role["rules"] for role in roles])
