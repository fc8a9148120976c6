"""What each switch of the chart makes, and what the processes are told."""

import importlib
import re
from collections.abc import Iterator

import pytest
import yaml

from services.chassis.settings import ServiceSettings, load, variables
from tests.kubernetes.chart.rendering import (
    BASES,
    CHART,
    COMMON_LABELS,
    COMPONENTS,
    DEV,
    EXTRA,
    KUBERNETES,
    NAMESPACE,
    OWN,
    SWITCHES,
    environment_of,
    find,
    golden,
    golden_path,
    helm,
    identity,
    pod_of,
    render,
    template,
    workloads,
)

PORTS = yaml.safe_load((CHART / "files" / "topology.yaml").read_text())["ports"]


def settings_of(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(
        "millrace_operator.settings" if service == "operator" else f"services.{service}.settings"
    )
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ServiceSettings) and value is not ServiceSettings
    ]
    return found


def deployments(values) -> Iterator[tuple[str, dict]]:
    objects = workloads(render(values))
    for component in COMPONENTS:
        yield component, objects[f"millrace-{component}"]


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_renders_what_was_looked_at(switch):
    """The render is that of the golden file; `python -m tests.kubernetes.chart.rendering --update` writes it anew."""
    assert golden_path(switch).exists(), (
        "run python -m tests.kubernetes.chart.rendering --update and look at what it writes"
    )
    assert golden(switch) == golden_path(switch).read_text()


@pytest.mark.parametrize("values", [OWN, DEV], ids=BASES)
def test_helm_has_nothing_to_say_against_the_chart(values, tmp_path):
    """`helm lint --strict` is content."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    said = helm("lint", "--strict", str(CHART), "--kube-version", KUBERNETES, "-f", str(file))
    assert "0 chart(s) failed" in said


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "kafka.bootstrapServers=host:9092"),
        ({"kafka": OWN["kafka"]}, "redis.url=redis://host:6379/0"),
        (OWN | {"redis": {"url": "redis://r:6379/0", "existingSecret": "r"}}, "both set: keep one"),
        (OWN | {"kafka": {"bootstrapServers": "k:9092", "existingSecret": "k"}}, "both set: keep one"),
        ({"redis": {"existingSecret": "r"}, "kafka": {"existingSecret": "k"}}, "put both entries into one"),
        (OWN | {"ingress": {"enabled": True}}, "ingress.host"),
        (OWN | {"gatewayApi": {"enabled": True}}, "gatewayApi.parentRefs"),
    ],
    ids=["no-kafka", "no-redis", "two-redis", "two-kafka", "two-secrets", "ingress", "gateway-api"],
)
def test_what_cannot_work_is_refused_with_the_way_out(values, word):
    """The message names the values to set."""
    assert word in template(values, fails=True)


def test_an_older_kubernetes_is_refused():
    """Containers cannot sleep before they stop before 1.30."""
    said = helm("template", "m", str(CHART), "--kube-version", "1.29.9", "-f", "-", values=OWN, fails=True)
    assert "requires kubeVersion: >=1.30.0-0" in said


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_object_says_whose_it_is(switch):
    """The usual labels are on each, and no two objects have the same kind, name and namespace."""
    objects = render(SWITCHES[switch])
    assert all(set(each["metadata"]["labels"]) >= COMMON_LABELS for each in objects)
    names = [identity(each) for each in objects]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("switch", ["dev", "existing-secrets", "network-policy-dev", "priority-classes", "monitoring"])
def test_a_name_of_its_own_begins_every_name(switch):
    """With fullnameOverride every object is named after it, and nothing speaks of the names that they had."""
    before, renamed = render(SWITCHES[switch]), render(SWITCHES[switch] | {"fullnameOverride": "quern"})
    assert len(renamed) == len(before)
    assert all(each["metadata"]["name"].startswith("quern-") for each in renamed)
    text = re.sub(
        r"resourceNames:\s+- millrace-operator", "", yaml.safe_dump(renamed)
    )  # the lease, one for each namespace
    old = "|".join(re.escape(each["metadata"]["name"]) for each in before)
    assert not re.findall(rf"(?<![/\w-])(?:{old})(?![\w-]|\.json)", text)


@pytest.mark.parametrize("switch", SWITCHES)
def test_everybody_is_told_only_what_they_know(switch):
    """Every variable of a service and of the operator is one of its settings and a value that it takes, in every render."""
    objects = render(SWITCHES[switch])
    for component in COMPONENTS:
        told = environment_of(objects, workloads(objects)[f"millrace-{component}"])
        named = {name for name in told if name.startswith("MILLRACE_")}
        assert named <= set(variables(settings_of(component), component))
        assert {"MILLRACE_COMMON__REDIS_URL", "MILLRACE_COMMON__KAFKA_BOOTSTRAP"} <= named
        settings = load(settings_of(component), component, told)
        assert (settings.host, settings.admin_port) == ("0.0.0.0", PORTS[component]["admin"])


@pytest.mark.parametrize("switch", SWITCHES)
def test_workers_are_told_only_what_they_know(switch):
    """The common environment of workers is made of settings of the worker, and sets neither pool nor name."""
    known = set(variables(settings_of("worker"), "worker"))
    for each in render(SWITCHES[switch]):
        if each["metadata"]["name"] == "millrace-worker-environment":
            named = {name for name in each["data"] if name.startswith("MILLRACE_")}
            assert named <= known - {"MILLRACE_WORKER__POOL", "MILLRACE_WORKER__NAME"}


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_operator_is_told_of_what_is_there(switch):
    """It works in the release's namespace, under its pod's name, and hands on what came with the release."""
    objects = render(SWITCHES[switch])
    told = environment_of(objects, workloads(objects)["millrace-operator"])
    assert told["MILLRACE_OPERATOR__NAMESPACE"] == NAMESPACE
    assert told["MILLRACE_OPERATOR__NAME"] == "metadata.name"
    find(objects, "ConfigMap", told["MILLRACE_OPERATOR__WORKER_ENVIRONMENT"])
    find(objects, "ServiceAccount", told["MILLRACE_OPERATOR__WORKER_SERVICE_ACCOUNT"])


def test_a_broker_alone_keeps_one_copy():
    """Lanes have as many copies as the values say, and one on the Kafka of dev."""
    for values, copies in ((OWN, "3"), (DEV, "1"), (SWITCHES["dev-own-kafka"], "3")):
        objects = render(values)
        told = environment_of(objects, workloads(objects)["millrace-operator"])
        assert told["MILLRACE_OPERATOR__REPLICATION"] == copies


@pytest.mark.parametrize("service", [*COMPONENTS, "worker"])
def test_ports_are_those_of_the_code(service):
    """Nothing sets a port but the admin's: the rest are the defaults of the settings."""
    settings = settings_of(service)()
    known = {"admin": settings.admin_port}
    if service == "gateway":
        known |= {"http": settings.port, "grpc": settings.grpc_port, "frames": settings.frames_port}  # type: ignore[attr-defined]
    elif service not in {"worker", "operator"}:
        known |= {"streams" if service == "dispatcher" else "calls": settings.port}
    assert {name: port for name, port in PORTS[service].items() if name != "metrics"} == known


def test_those_who_are_called_one_by_one_give_their_own_address():
    """Workers dial the gateway and the dispatcher of a task at the address of the pod."""
    objects = render(OWN)
    pods = workloads(objects)
    gateway = environment_of(objects, pods["millrace-gateway"])
    dispatcher = environment_of(objects, pods["millrace-dispatcher"])
    assert gateway["MILLRACE_GATEWAY__FRAMES_HOST"] == "$(POD_IP)"
    assert dispatcher["MILLRACE_DISPATCHER__ADDRESS"] == "$(POD_IP):8105"
    for told in (gateway, dispatcher):
        assert told["POD_IP"] == "status.podIP"
        assert list(told).index("POD_IP") < list(told).index(next(name for name in told if "$(POD_IP)" in told[name]))
        assert told["MILLRACE_COMMON__HOST"] == "0.0.0.0"


def test_addresses_are_names_of_headless_services():
    """Each address that a service is told is a Service without an address of its own, at the port behind."""
    objects = render(OWN)
    told = [environment_of(objects, each) for each in workloads(objects).values()]
    addresses = {value for each in told for name, value in each.items() if name.endswith("_ADDRESSES")}
    assert addresses == {"millrace-ratelimiter:8101", "millrace-cache:8102", "millrace-router:8104"}
    for address in addresses:
        name, _, port = address.partition(":")
        service = find(objects, "Service", name)
        assert service["spec"]["clusterIP"] == "None"
        assert [each["port"] for each in service["spec"]["ports"]] == [int(port)]
    assert find(objects, "Service", "millrace-dispatcher")["spec"]["clusterIP"] == "None"


def test_every_service_finds_its_pods():
    """Each selector matches the pods of one component, and each named port exists there."""
    objects = render(DEV)
    for service in (each for each in objects if each["kind"] == "Service"):
        wanted = service["spec"]["selector"].items()
        (workload,) = [
            each
            for each in workloads(objects).values()
            if wanted <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        ports = {port["name"] for container in pod_of(workload)["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


@pytest.mark.parametrize("switch", ["default", "timing"])
def test_a_pod_has_time_to_leave(switch):
    """Endpoints leave, then running work ends, then there are ten seconds to spare."""
    values = SWITCHES[switch]
    for component, deployment in deployments(values):
        pod = pod_of(deployment)
        told = environment_of(render(values), deployment)
        sleeps = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert sleeps == values.get("preStopSeconds", 5), component
        assert pod["terminationGracePeriodSeconds"] == sleeps + float(told["MILLRACE_COMMON__DRAIN_S"]) + 10


def test_probes_ask_the_admin_port():
    """Started and alive is /healthz, ready is /readyz, and none of them asks the port of clients."""
    for component, deployment in deployments(OWN):
        container = pod_of(deployment)["containers"][0]
        asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
        assert [each["path"] for each in asked.values()] == ["/healthz", "/readyz", "/healthz"]
        assert {each["port"] for each in asked.values()} == {"admin"}
        assert {"name": "admin", "containerPort": PORTS[component]["admin"]} in container["ports"]


def test_a_changed_setting_replaces_the_pods_that_read_it():
    """The checksum follows the environment, of the operator also the samples, and nothing else."""

    def sums(values):
        return {
            component: deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
            for component, deployment in deployments(values)
        }

    before = sums(OWN)
    assert before == sums(OWN | {"gateway": {"replicas": 5}})
    assert all(before[component] != checksum for component, checksum in sums(OWN | {"drainSeconds": 21}).items())
    with_samples, without = sums(DEV), sums({"dev": {"enabled": True, "samples": False}})
    assert {component for component in COMPONENTS if with_samples[component] != without[component]} == {"operator"}


def test_a_changed_environment_replaces_the_workers():
    """The operator is told a checksum of what workers read by name, which follows their ConfigMap and nothing else."""

    def told(values):
        objects = render(values)
        operator = environment_of(objects, workloads(objects)["millrace-operator"])
        return find(objects, "ConfigMap", operator["MILLRACE_OPERATOR__WORKER_ENVIRONMENT"])["data"], operator

    environment, before = told(OWN)
    for values in (
        {"redis": {"url": "redis://another.infra:6379/0"}},
        {"kafka": {"bootstrapServers": "another.infra:9092"}},
        {"logLevel": "DEBUG"},
    ):
        changed, after = told(OWN | values)
        assert changed != environment
        assert after["MILLRACE_OPERATOR__WORKER_CHECKSUM"] != before["MILLRACE_OPERATOR__WORKER_CHECKSUM"]
    for values in ({"drainSeconds": 21}, {"images": {"tag": "9.9.9"}}, {"operator": {"replicas": 2}}):
        unchanged, after = told(OWN | values)
        assert unchanged == environment
        assert after["MILLRACE_OPERATOR__WORKER_CHECKSUM"] == before["MILLRACE_OPERATOR__WORKER_CHECKSUM"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_takes_what_people_add(component):
    """Variables, volumes, mounts, containers, annotations, labels, placement and resources reach the pod beside the chart's own."""
    added = EXTRA | {"replicas": 2}
    objects = render(OWN | {component: added})
    deployment = workloads(objects)[f"millrace-{component}"]
    pod, meta = pod_of(deployment), deployment["spec"]["template"]["metadata"]
    container = pod["containers"][0]
    assert deployment["spec"]["replicas"] == 2
    assert all(each in container["env"] for each in added["extraEnv"])
    assert all(each in pod["volumes"] for each in added["extraVolumes"])
    assert all(each in container["volumeMounts"] for each in added["extraVolumeMounts"])
    assert pod["containers"][1:] == added["extraContainers"]
    assert meta["annotations"].items() >= added["podAnnotations"].items()
    assert meta["labels"].items() >= added["podLabels"].items()
    assert (pod["nodeSelector"], pod["tolerations"], pod["affinity"]) == (
        added["nodeSelector"], added["tolerations"], added["affinity"],
    )  # fmt: skip
    assert container["resources"]["limits"] == added["resources"]["limits"]
    others = [each for name, each in workloads(objects).items() if name != f"millrace-{component}"]
    assert others == [each for name, each in workloads(render(OWN)).items() if name != f"millrace-{component}"]


def test_images_are_named_by_registry_component_and_tag():
    """A digest goes before the tag; the operator hands on the worker's, the engine's and the names of pull secrets."""
    objects = render(SWITCHES["images"])
    place = "registry.example.com/inference/millrace-"
    images = {name: pod_of(each)["containers"][0]["image"] for name, each in workloads(objects).items()}
    assert images["millrace-router"] == f"{place}router:1.2.3"
    assert images["millrace-gateway"].startswith(f"{place}gateway@sha256:")
    told = environment_of(objects, workloads(objects)["millrace-operator"])
    assert told["MILLRACE_OPERATOR__WORKER_IMAGE"].startswith(f"{place}worker@sha256:")
    assert told["MILLRACE_OPERATOR__ENGINE_IMAGE"] == SWITCHES["images"]["images"]["engine"]
    assert told["MILLRACE_OPERATOR__IMAGE_PULL_SECRETS"] == "registry"
    assert all(pod_of(each)["imagePullSecrets"] == [{"name": "registry"}] for each in workloads(objects).values())
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    default = workloads(render(OWN))["millrace-router"]
    assert pod_of(default)["containers"][0]["image"] == f"localhost/millrace-router:{version}"
    assert pod_of(default)["containers"][0]["imagePullPolicy"] == "IfNotPresent"


def test_development_pods_come_only_where_nothing_is_named():
    """Without dev there are none; a Kafka that is named takes the place of the one of dev."""
    assert set(workloads(render(OWN))) == {f"millrace-{component}" for component in COMPONENTS}
    assert set(workloads(render(DEV))) - set(workloads(render(OWN))) == {"millrace-dev-kafka", "millrace-dev-redis"}
    mixed = render(SWITCHES["dev-own-kafka"])
    assert "millrace-dev-kafka" not in workloads(mixed)
    told = environment_of(mixed, workloads(mixed)["millrace-router"])
    assert told["MILLRACE_COMMON__KAFKA_BOOTSTRAP"] == OWN["kafka"]["bootstrapServers"]
    assert told["MILLRACE_COMMON__REDIS_URL"] == f"redis://millrace-dev-redis.{NAMESPACE}.svc:6379/0"


def test_development_pods_say_that_they_are_not_for_production():
    """Their name, a label and an annotation of the workload, its pods and its Service."""
    objects = render(DEV)
    for each in objects:
        if "dev-" in each["metadata"]["name"] and each["kind"] in {"StatefulSet", "Service"}:
            metas = [
                each["metadata"],
                *([each["spec"]["template"]["metadata"]] if each["kind"] == "StatefulSet" else []),
            ]
            assert all(meta["labels"]["millrace.dev/not-for-production"] == "true" for meta in metas)
            assert all("Bring your own" in meta["annotations"]["millrace.dev/not-for-production"] for meta in metas)
    kafka = workloads(objects)["millrace-dev-kafka"]
    host = f"millrace-dev-kafka.{NAMESPACE}.svc"
    assert environment_of(objects, kafka) == {"KAFKA_ADVERTISED_HOST": host, "KAFKA_LISTEN_PORT": "9092"}
    redis = workloads(objects)["millrace-dev-redis"]
    assert pod_of(redis)["containers"][0]["args"] == ["--port", "6379"]


def test_nothing_secret_stands_in_a_config_map():
    """Addresses of a Secret reach services by reference, and workers by the Secret that the operator is told."""
    objects = render(SWITCHES["existing-secrets"])
    told = environment_of(objects, workloads(objects)["millrace-dispatcher"])
    for name in ("MILLRACE_COMMON__REDIS_URL", "MILLRACE_COMMON__KAFKA_BOOTSTRAP"):
        assert told[name] == f"stores/{name}"
    operator = environment_of(objects, workloads(objects)["millrace-operator"])
    assert operator["MILLRACE_OPERATOR__WORKER_SECRET"] == "stores"
    assert not [each for each in objects if each["kind"] == "Secret"]
    maps = yaml.safe_dump([each for each in objects if each["kind"] == "ConfigMap"])
    assert "REDIS_URL" not in maps
    assert "KAFKA_BOOTSTRAP" not in maps


def test_the_secret_of_task_ids_is_mounted_where_the_gateway_looks():
    """The file that the gateway is told is an entry of the Secret, the chart's or one that was there."""
    for switch, secret, key in (("default", "millrace-task-id", "task-id"), ("existing-secrets", "task-ids", "secret")):
        objects = render(SWITCHES[switch])
        gateway = workloads(objects)["millrace-gateway"]
        assert {"name": "task-id", "secret": {"secretName": secret}} in pod_of(gateway)["volumes"]
        told = environment_of(objects, gateway)
        assert told["MILLRACE_GATEWAY__TASK_SECRET_FILE"] == f"/etc/millrace/task-id/{key}"
    assert len(find(render(OWN), "Secret", "millrace-task-id")["data"]["task-id"]) > 80


def test_budgets_let_one_pod_go_at_a_time():
    """Each component has one, and it selects its pods."""
    objects = render(OWN)
    for component in COMPONENTS:
        spec = find(objects, "PodDisruptionBudget", f"millrace-{component}")["spec"]
        assert spec["maxUnavailable"] == 1
        assert spec["selector"] == workloads(objects)[f"millrace-{component}"]["spec"]["selector"]
    assert not [
        each for each in render(SWITCHES["without-budgets-and-spread"]) if each["kind"] == "PodDisruptionBudget"
    ]
