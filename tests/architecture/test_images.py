"""Rules that hold for the container images; nothing is built."""

import importlib
import importlib.util
import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from millrace_operator.core.desired import Installation, objects
from millrace_operator.core.manifests import Manifest, read
from services.chassis.settings import ServiceSettings
from services.cli.stack.core.blueprint import parse
from services.cli.stack.software import LOCAL, ROOT

IMAGES = ROOT / "deploy" / "images"
COMPONENTS, COMMON = parse((LOCAL / "components.toml").read_text())
BY_NAME = {component.name: component for component in COMPONENTS}
SERVICES = sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py") if path.parent.name != "cli")
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))


@cache
def listed() -> dict[str, set[int]]:
    """Each image that is built by default, without prefix and tag, and its ports."""
    done = subprocess.run([IMAGES / "build", "--list"], capture_output=True, text=True, check=True, timeout=20)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {re.sub(r".*/millrace-(.*):.*", r"\1", name): {int(port) for port in ports} for name, *ports in lines}


def script(name: str) -> ModuleType:
    """A script of the images' build."""
    spec = importlib.util.spec_from_file_location(name, IMAGES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(text: str) -> list[str]:
    """The instructions of a Dockerfile, continuations joined, without comments."""
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [step.strip() for step in re.split(r"\n(?=[A-Z]+ )", kept.replace("\\\n", " ")) if step.strip()]


def final(text: str) -> list[str]:
    """The instructions of a Dockerfile's last stage."""
    found = steps(text)
    last = max(number for number, step in enumerate(found) if step.startswith("FROM "))
    return found[last:]


def test_every_service_has_an_image():
    """Whatever can be started with `python -m services.X` can be built, and the operator, the engine and the stores beside it."""
    assert set(listed()) == {*SERVICES, "operator", "triton", "kafka", "redis"}
    assert set(script("locks").IMAGES) == {*SERVICES, "operator"}


@pytest.mark.parametrize("name", [*SERVICES, "kafka", "redis"])
def test_an_image_exposes_the_ports_of_its_component(name):
    """The ports of deploy/local/components.toml are those of the image."""
    assert listed()[name] == set(BY_NAME[name].ports.values())


@pytest.mark.parametrize("name", [*SERVICES, "operator"])
def test_a_service_listens_where_its_image_says(name):
    """The ports of an image are the defaults of the settings: nothing in the image or the chart has to set them."""
    module = importlib.import_module(
        "millrace_operator.settings" if name == "operator" else f"services.{name}.settings"
    )
    found = [
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
    ]
    settings = next(value for value in found if issubclass(value, ServiceSettings))()
    ports = {getattr(settings, field) for field in settings.__struct_fields__ if re.search(r"(^|_)port$", field)}
    assert ports - {0} == listed()[name]


@pytest.mark.parametrize("name", ["kafka", "redis", "triton", "triton-gpu"])
def test_a_dockerfile_exposes_what_the_list_says(name):
    """Ports that stand in a Dockerfile are those of `build --list`."""
    exposed = [step for step in final((IMAGES / f"{name}.Dockerfile").read_text()) if step.startswith("EXPOSE ")]
    assert {int(port) for step in exposed for port in step.split()[1:]} == listed()[name.removesuffix("-gpu")]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_nothing_runs_as_root(dockerfile):
    """The last user of the last stage is a number, which `runAsNonRoot` can check, and not 0."""
    users = [step for step in final(dockerfile.read_text()) if step.startswith("USER ")]
    assert users[-1] == "USER 10001:10001"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_says_what_it_is(dockerfile):
    """Title, version, revision and source stand in its labels, and it ends on TERM."""
    text = "\n".join(final(dockerfile.read_text()))
    for label in ("title", "version", "revision", "source"):
        assert f"org.opencontainers.image.{label}=" in text
    assert "STOPSIGNAL SIGTERM" in text


def test_images_share_their_first_layers():
    """The same steps stand word for word in every Dockerfile on Debian: a different letter would be a second copy."""
    debian = {path.stem: steps(path.read_text())[2] for path in DOCKERFILES if path.stem != "triton-gpu"}
    assert len(set(debian.values())) == 1, debian
    python = {name: steps((IMAGES / f"{name}.Dockerfile").read_text())[3] for name in ("python", "triton")}
    assert len(set(python.values())) == 1, python


def test_services_in_images_run_like_those_of_the_stack():
    """gRPC polls as deploy/local/components.toml says, and nothing is imported from the working directory."""
    text = "\n".join(final((IMAGES / "python.Dockerfile").read_text()))
    assert f"GRPC_EXPERIMENTS={COMMON['GRPC_EXPERIMENTS']} " in text
    assert "PYTHONSAFEPATH=1 " in text
    assert "MILLRACE_COMMON__HOST=0.0.0.0" in text


def test_redis_in_an_image_has_the_flags_of_the_stack():
    """Every flag of the component stands in the entry point, but for where it listens and where its data is."""
    entry = next(step for step in final((IMAGES / "redis.Dockerfile").read_text()) if step.startswith("ENTRYPOINT "))
    given = json.loads(entry.removeprefix("ENTRYPOINT "))[2:]
    places = {"127.0.0.1": "0.0.0.0", "{self.port}": "16379", "{data}": "/data"}
    wanted = [places.get(word, word) for word in BY_NAME["redis"].command]
    assert [word for word in given if word not in {"--protected-mode", "no"}] == wanted


def test_kafka_in_an_image_fills_in_every_place_of_the_settings():
    """Settings and options of the JVM are the stack's own files; the entry point says where it listens and where its data is."""
    places = set(re.findall(r"@([A-Z_]+)@", (LOCAL / "kafka" / "broker.properties").read_text()))
    assert set(re.findall(r"s\|@([A-Z_]+)@\|", (IMAGES / "kafka" / "run").read_text())) == places
    copied = next(step for step in steps((IMAGES / "kafka.Dockerfile").read_text()) if "broker.properties" in step)
    assert {"deploy/local/kafka/broker.properties", "deploy/local/kafka/jvm.options"} <= set(copied.split())


def engine_environment(**triton) -> dict[str, str]:
    """What the operator tells the engine of a pool."""
    head = {"apiVersion": "millrace.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": "p"}}
    pool = read(Manifest("test", 1, {**head, "spec": {"model": {"name": "m"}, "engine": {"triton": triton}}}))
    owner = {**head, "metadata": {"name": "p", "namespace": "here", "uid": "1"}}
    made = {each["kind"]: each for each in objects(pool, owner, Installation(worker_image="w", engine_image="e"))}
    (engine,) = made["Deployment"]["spec"]["template"]["spec"]["initContainers"]
    return {each["name"]: each["value"] for each in engine["env"]}


def engine_started(
    image: str, folder: Path, environment: dict[str, str], *arguments: str
) -> tuple[set[str], list[str]]:
    """Options of the server and arguments of its watchdog, when the image's entry point is run and these two are played.

    The files lie in the folder as in the image's /opt/millrace. The server waits for its watchdog, which would die with it.
    """
    server = folder / "triton/venv/lib/python3.11/site-packages/pytriton/tritonserver/bin/tritonserver"
    watchdog = folder / ("deploy/triton/watchdog.sh" if image == "triton" else "watchdog.sh")
    plays = '#!/bin/sh\nprintf "%s\\n" "$@" >{0}.new\nmv {0}.new {0}\n'
    waits = f"until [ -e {folder}/of-watchdog ]; do sleep 0.05; done\n"
    for file, text in {
        folder / "run": (IMAGES / image / "run").read_text(),
        folder / "deploy/triton/serve.sh": (ROOT / "deploy" / "triton" / "serve.sh").read_text(),
        folder / "deploy/local/versions.toml": (LOCAL / "versions.toml").read_text(),
        folder / "triton/installed.lock": "",
        server: plays.format(folder / "of-server") + waits,
        watchdog: plays.format(folder / "of-watchdog"),
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    told = environment | {
        "PATH": f"{server.parent}:{os.environ['PATH']}",
        "MILLRACE_TRITON_HOME": str(folder / "triton"),
    }
    subprocess.run([folder / "run", *arguments], env=told, check=True, timeout=30)
    of_server, of_watchdog = folder / "of-server", folder / "of-watchdog"
    said = set(of_server.read_text().splitlines()), of_watchdog.read_text().splitlines()
    of_watchdog.unlink()
    return said


@pytest.mark.parametrize("image", ["triton", "triton-gpu"])
def test_an_engine_serves_what_its_pool_says_where_its_pool_says(image, tmp_path):
    """The ports and the repository of spec.engine.triton reach the server and its watchdog."""
    triton = {"httpPort": 9000, "grpcPort": 9001, "metricsPort": 9002, "modelRepository": {"path": "/tmp"}}
    options, watchdog = engine_started(image, tmp_path, engine_environment(**triton))
    assert {"--http-port=9000", "--grpc-port=9001", "--metrics-port=9002", "--model-repository=/tmp"} <= options
    assert watchdog == ["0.0.0.0", "9000", "/tmp"]


@pytest.mark.parametrize("image", ["triton", "triton-gpu"])
def test_an_engine_that_is_told_nothing_is_that_of_a_pool_that_says_nothing(image, tmp_path):
    """The defaults of the entry point are those of the custom resource; an argument names another repository."""
    options, watchdog = engine_started(image, tmp_path, {})
    assert {"--http-port=8000", "--grpc-port=8001", "--metrics-port=8002", "--model-repository=/models"} <= options
    assert watchdog == ["0.0.0.0", "8000", "/models"]
    assert engine_started(image, tmp_path, engine_environment()) == (options, watchdog)
    assert "--model-repository=/tmp" in engine_started(image, tmp_path, engine_environment(), "/tmp")[0]


@pytest.mark.parametrize("image", ["triton", "triton-gpu"])
def test_the_entry_point_of_an_engine_is_its_script(image):
    """It is in the image, and no argument of the image's own goes before what the pool says."""
    text = (IMAGES / f"{image}.Dockerfile").read_text()
    assert any(f" deploy/images/{image}/run " in step for step in steps(text) if step.startswith("COPY "))
    entry = [step for step in final(text) if step.startswith(("ENTRYPOINT ", "CMD "))]
    (command,) = [json.loads(step.removeprefix("ENTRYPOINT ")) for step in entry]
    assert command[-1] == "/opt/millrace/run"


def test_samples_on_a_gpu_give_the_engine_the_shared_memory_that_its_image_needs():
    """Those of deploy/samples and of the chart's README, against what the Dockerfile says of /dev/shm."""
    (needed,) = re.findall(r"/dev/shm of at least (\d+) GiB", (IMAGES / "triton-gpu.Dockerfile").read_text())
    readme = (ROOT / "charts" / "millrace" / "README.md").read_text()
    texts = [path.read_text() for path in sorted((ROOT / "deploy" / "samples").glob("*.yaml"))]
    texts += re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    documents = [document for text in texts for document in yaml.safe_load_all(text)]
    pools = [each for each in documents if each["kind"] == "WorkerPool" and "accelerator" in each["spec"]]
    given = [pool["spec"]["engine"]["triton"].get("sharedMemory", "the default") for pool in pools]
    assert len(given) == 3
    assert all(memory.endswith("Gi") and int(memory.removesuffix("Gi")) >= int(needed) for memory in given), given


@pytest.mark.parametrize("image", [*SERVICES, "operator"])
def test_an_image_installs_its_lock_and_nothing_else(image):
    """The packages of all images and its own together are its lock, each with hashes."""
    locks = script("locks")
    folder = ROOT / "requirements"
    common, own = locks.common(folder), locks.own(folder, image)
    assert common
    assert not set(common) & set(own)
    assert common | own == locks.packages(folder / f"{image}.lock")
    assert all("--hash=sha256:" in entry for entry in [*common.values(), *own.values()])


def test_a_bill_of_materials_names_every_package():
    """Each package of a lock is in the bill with version and allowed hashes, and the same lock gives the same bytes."""
    sbom, locks = script("sbom"), script("locks")
    lock = ROOT / "requirements" / "worker.lock"
    bill = sbom.bill("worker", "1", list(sbom.python_packages(lock)))
    assert {f"{c['name']}=={c['version']}" for c in bill["components"]} == set(locks.packages(lock))
    assert all(c["properties"] for c in bill["components"])
    assert bill == sbom.bill("worker", "1", list(sbom.python_packages(lock)))


def test_a_bill_of_materials_quotes_versions(tmp_path):
    """An epoch and a plus in a Debian version do not break the package's URL."""
    status = tmp_path / "status"
    stanza = "Package: {}\nStatus: {} ok installed\nArchitecture: amd64\nVersion: 1:2.3+b1~1\n"
    status.write_text(stanza.format("libstdc++6", "install") + "\n" + stanza.format("gone", "deinstall"))
    (component,) = script("sbom").debian_packages(status)
    assert component["purl"] == "pkg:deb/debian/libstdc%2B%2B6@1%3A2.3%2Bb1~1?arch=amd64&distro=debian-12"
