"""What skaffold.yaml says, held to the images, the charts and the samples; Skaffold itself is asked in tests/kubernetes."""

import functools
import subprocess
from typing import Any

import pytest
import yaml

from services.cli.stack.software import ROOT

BUILD = ROOT / "deploy" / "images" / "build"
CONFIGS: dict[str, dict[str, Any]] = {
    each["metadata"]["name"]: each for each in yaml.safe_load_all((ROOT / "skaffold.yaml").read_text())
}
CORE = CONFIGS["core"]
(RELEASE,) = CORE["deploy"]["helm"]["releases"]
(LOAD,) = CONFIGS["load"]["deploy"]["helm"]["releases"]
GPU_PATCHES = next(each for each in CORE["profiles"] if each["name"] == "gpu")["patches"]
GPU_ARTIFACT = next(each for each in GPU_PATCHES if each["path"].startswith("/build/artifacts/"))
ARTIFACTS = {each["image"]: each["custom"] for each in [*CORE["build"]["artifacts"], GPU_ARTIFACT["value"]]}


def asked(*options: str) -> list[str]:
    """Lines of the images' build."""
    done = subprocess.run([BUILD, *options], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.splitlines()


@functools.cache
def values(chart: str) -> Any:
    return yaml.safe_load((ROOT / chart / "values.yaml").read_text())


def value(chart: str, path: str) -> Any:
    """What a chart has at a dotted path; KeyError when it has no such value."""
    return functools.reduce(lambda at, name: at[name], path.split("."), values(chart))


def test_the_modules_stand_on_each_other():
    """The platform, on it the samples, on them the load."""
    assert list(CONFIGS) == ["core", "workers", "load"]
    needs = {
        name: [needed for each in config.get("requires", []) for needed in each["configs"]]
        for name, config in CONFIGS.items()
    }
    assert needs == {"core": [], "workers": ["core"], "load": ["workers"]}


@pytest.mark.parametrize("module", CONFIGS)
def test_every_module_knows_every_profile(module):
    """`cpu` is what is there without a profile."""
    profiles = {each.pop("name"): each for each in map(dict, CONFIGS[module]["profiles"])}
    assert list(profiles) == ["cpu", "gpu", "ci"]
    assert not profiles["cpu"]
    assert not any("activation" in each for each in profiles.values())


def test_every_image_is_an_artifact():
    """One for each that the build makes by default, and the GPU engine in the place of the CPU one."""
    names = [line.split()[0] for line in asked("--registry", "r", "--tag", "t", "--list")]
    assert {name.removeprefix("r/").removesuffix(":t") for name in names} == ARTIFACTS.keys() - {"millrace-triton-gpu"}
    replaced = int(GPU_ARTIFACT["path"].rpartition("/")[2])
    assert CORE["build"]["artifacts"][replaced]["image"] == "millrace-triton"


@pytest.mark.parametrize("image", ARTIFACTS)
def test_an_artifact_is_built_again_when_its_sources_change(image):
    """Its paths are those of which the build makes the image, and they are there."""
    paths = ARTIFACTS[image]["dependencies"]["paths"]
    assert paths == asked("--sources", image.removeprefix("millrace-"))
    assert not [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("image", ARTIFACTS)
@pytest.mark.parametrize("push", ["true", "false"])
def test_an_artifact_is_built_by_the_images_build(image, push):
    """Under the name that Skaffold gives it, and pushed when Skaffold says so; the GPU engine on NVIDIA's image."""
    command = ARTIFACTS[image]["buildCommand"].replace("deploy/images/build ", "printf '%s\\n' ")
    name = f"localhost:5000/some/{image}:1-dirty"
    environment = {"IMAGE": name, "PUSH_IMAGE": push, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True, timeout=5)
    base = ["--base", "registry"] if image.endswith("-gpu") else []
    assert done.stdout.split() == [*base, "--as", name, *(["--push"] if push == "true" else [])]
    assert asked("--as", name, "--list")[0].split()[0] == name


def test_a_name_without_a_registry_is_refused():
    """The sentence says which option of Skaffold is missing."""
    done = subprocess.run([BUILD, "--as", "millrace-gateway:1", "--list"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "--default-repo" in done.stderr


def test_the_chart_gets_every_image_that_it_can_take():
    """A digest for each, and registry and tag for what has none."""
    templates = RELEASE["setValueTemplates"]
    digests = {f"images.digests.{name}" for name in value("charts/millrace", "images.digests")}
    assert templates.keys() == {"images.registry", "images.tag", *digests}
    for path in digests:
        assert templates[path] == f"{{{{ .IMAGE_DIGEST_millrace_{path.rpartition('.')[2]} }}}}"


@pytest.mark.parametrize(("release", "module"), [(RELEASE, "core"), (LOAD, "load")], ids=["core", "load"])
def test_only_values_are_set_that_the_chart_has(release, module):
    """In every profile."""
    given = {*release["setValues"], *release["setValueTemplates"]}
    for profile in CONFIGS[module]["profiles"]:
        for patch in profile.get("patches", []):
            _, _, name = patch["path"].partition("/releases/0/setValue")
            given |= {name.partition("/")[2]} if "/" in name else set(patch.get("value", []) if name else [])
    for path in given:
        value(release["chartPath"], path)


def test_the_modules_bring_the_samples():
    """Those for GPUs only where there are some."""
    samples = CONFIGS["workers"]["manifests"]["rawYaml"]
    gpu = [patch["value"] for each in CONFIGS["workers"]["profiles"] for patch in each.get("patches", [])]
    assert sorted([*samples, *gpu]) == sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / "deploy/samples").iterdir()
    )
    for name in samples:
        pools = [each for each in yaml.safe_load_all((ROOT / name).read_text()) if each["kind"] == "WorkerPool"]
        assert not [pool for pool in pools if "accelerator" in pool["spec"]]


def test_the_load_asks_the_installed_platform():
    """The default image of its chart is the gateway's of the other, and so is the port."""
    chart = yaml.safe_load((ROOT / "charts/millrace/Chart.yaml").read_text())
    registry = value("charts/millrace", "images.registry")
    assert value("deploy/load", "image") == f"{registry}/millrace-gateway:{chart['appVersion']}"
    port = value("charts/millrace", "gateway.service.grpcPort")
    assert value("deploy/load", "gateway") == f"{RELEASE['name']}-gateway:{port}"
