"""The CRDs follow from the schema: described, bounded, current; and folders of manifests obey the same rules."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from millrace_operator import crds
from millrace_operator.core.declare import Rule
from millrace_operator.core.definitions import DIGEST, definition, definitions
from millrace_operator.core.manifests import Flaw, Manifest, read
from millrace_operator.core.schema import CUSTOM_RESOURCES, WorkerPool
from millrace_operator.core.snapshot import compile_snapshot
from tests.kubernetes.crds.cases import API_VERSION, CASES, case_id, document

ROOTS = {name: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for name, crd in definitions().items()}


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema with its place; of metadata only what is Kubernetes' own, so nothing."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        if name != "metadata":
            yield from nodes(part, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from nodes(schema[word], f"{path}[]")


NODES = [node for name, root in ROOTS.items() for node in nodes(root, name.partition(".")[0])]
RULES = [rule for _, node in NODES for rule in node.get("x-kubernetes-validations", [])]


def test_the_committed_crds_are_current():
    """`python -m millrace_operator.crds` would change nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "millrace_operator.crds", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_crd_that_was_edited_removed_or_left_over_is_named(tmp_path):
    """The check compares whole folders."""
    for name, text in crds.files().items():
        (tmp_path / name).write_text(text)
    assert crds.stale(tmp_path) == []
    (tmp_path / "tenants.yaml").write_text("edited")
    (tmp_path / "workerpools.yaml").unlink()
    (tmp_path / "budgets.yaml").write_text("left over")
    assert crds.stale(tmp_path) == ["budgets.yaml", "tenants.yaml", "workerpools.yaml"]


def test_the_same_schema_gives_the_same_bytes():
    """In another process with another hash seed as well."""
    printed = {
        subprocess.run(
            [sys.executable, "-m", "millrace_operator.crds", "--print"],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_every_field_has_a_description():
    """`kubectl explain` is the manual; only entries of lists and maps are told by the list or map."""
    silent = [path for path, node in NODES if not path.endswith("[]") and not node.get("description")]
    assert not silent


def test_every_description_is_sentences_for_people():
    """With a capital and a full stop."""
    told = [(path, node["description"]) for path, node in NODES if "description" in node]
    odd = [path for path, text in told if not (text[0].isupper() and text.endswith("."))]
    assert not odd


def test_everything_is_bounded():
    """Lists, maps, strings and numbers: the cost of rules and the size of an object have a limit."""
    typed = [(path, node) for path, node in NODES if not path.endswith((".apiVersion", ".kind")) or ".spec." in path]
    bounds = {"array": "maxItems", "string": "maxLength", "integer": "maximum", "number": "maximum"}
    loose = [
        path
        for path, node in typed
        if node.get("type") in bounds
        and bounds[node["type"]] not in node
        and "enum" not in node
        and node.get("format") != "date-time"
    ]
    loose += [path for path, node in typed if "additionalProperties" in node and "maxProperties" not in node]
    loose += [path for path, node in typed if "x-kubernetes-int-or-string" in node and "maxLength" not in node]
    assert not loose


def test_the_schema_is_structural():
    """No references, no alternatives, nothing nullable; lists say how they are merged."""
    for path, node in NODES:
        assert not node.keys() & {"$ref", "anyOf", "oneOf", "allOf", "not", "nullable"}, path
        assert "type" in node or "x-kubernetes-int-or-string" in node, path
        assert ("x-kubernetes-list-type" in node) == (node.get("type") == "array"), path


def test_status_has_no_defaults():
    """What the operator did not say is absent, not zero."""
    assert not [path for path, node in NODES if ".status" in path and "default" in node]


def test_every_status_has_conditions_and_the_generation_they_are_about():
    """All four kinds are waited for in the same way."""
    for root in ROOTS.values():
        status = root["properties"]["status"]["properties"]
        assert status["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
        assert status["observedGeneration"]["format"] == "int64"
        assert "observedGeneration" in status["conditions"]["items"]["properties"]


def test_every_rule_names_its_field_and_has_a_manifest_that_passes_and_one_that_fails():
    """The table lists each rule by its text, and nothing that is no rule."""
    assert {rule["rule"] for rule in RULES} == {case["rule"] for case in CASES if "rule" in case}
    for rule in RULES:
        assert rule.get("fieldPath") or "secretRef" in rule["message"], rule
        assert rule["message"].count(":") == 1, rule


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_manifest_that_the_cluster_accepts_is_read_offline(case):
    """One schema for both."""
    found = read(Manifest("a.yaml", 1, document(case, "passes")))
    assert not isinstance(found, Flaw), found


@pytest.mark.parametrize("case", [case for case in CASES if "oldSelf" not in case.get("rule", "")], ids=case_id)
def test_a_manifest_that_the_cluster_refuses_is_refused_offline(case):
    """At the same place or above it; only rules about a change have no meaning in a folder."""
    found = compile_snapshot([Manifest("a.yaml", 1, document(case, "fails"))])
    assert isinstance(found, list)
    flaws = [flaw.rule if flaw.path == "(document)" else flaw.path.partition("[...]")[0] for flaw in found]
    field = case["field"]
    assert [flaw for flaw in flaws if field.startswith(flaw) or flaw.startswith(field)], found


def test_what_the_api_server_adds_may_stand_in_a_manifest():
    """`kubectl get -o yaml` into a folder is a manifest."""
    stored = {
        "apiVersion": API_VERSION,
        "kind": "WorkerPool",
        "metadata": {
            "name": "tiny",
            "namespace": "models",
            "uid": "01c81a1e-b73d-47d0-91f5-a21ec8228752",
            "generation": 3,
            "resourceVersion": "212",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["millrace.dev/drain"],
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {"model": {"name": "tiny"}, "queue": {"maxSeconds": 30}},
        "status": {
            "replicas": 2,
            "lastDecision": {
                "time": "2026-01-01T00:00:00Z",
                "from": 1,
                "to": 2,
                "reason": "LoadGrew",
                "message": "2 replicas",
            },
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Serving",
                    "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
        },
    }
    found = read(Manifest("a.yaml", 1, stored))
    assert isinstance(found, WorkerPool), found
    assert (found.metadata.generation, found.spec.replicas) == (3, 1)
    assert found.status
    assert found.status.last_decision
    assert found.status.last_decision.from_ == 1


def test_a_broken_rule_is_told_with_its_place():
    """As a wrong field is."""
    spec = {"model": {"name": "m"}, "scaling": {"minReplicas": 3, "maxReplicas": 2}}
    wrong = {"apiVersion": API_VERSION, "kind": "WorkerPool", "metadata": {"name": "a"}, "spec": spec}
    found = read(Manifest("pools.yaml", 2, wrong))
    assert str(found) == (
        "pools.yaml#2 WorkerPool/a spec.scaling: minReplicas is above maxReplicas: lower it or raise maxReplicas"
    )


def test_helm_keeps_the_crds_on_request():
    """One switch around one annotation; all else is plain YAML."""
    for name, text in crds.files().items():
        assert text.count("{{") == text.count("helm.sh/resource-policy: keep") * 2 == 2, name
        plain = definitions()[f"{name.removesuffix('.yaml')}.millrace.dev"]
        assert text.replace(crds.KEEP, "") == crds.HEAD + crds.yaml_of([plain]).removeprefix("---\n")


def test_a_crd_says_by_a_digest_which_schema_it_has(monkeypatch):
    """Whatever changes in it changes the annotation, so an operator sees that the cluster has others than its own."""
    before = definition(WorkerPool)["metadata"]["annotations"][DIGEST]
    assert definition(WorkerPool)["metadata"]["annotations"][DIGEST] == before
    monkeypatch.setattr(WorkerPool, "columns", WorkerPool.columns[:-1])
    assert definition(WorkerPool)["metadata"]["annotations"][DIGEST] != before


def test_names_are_short_and_none_is_taken_twice():
    """wp, mr, tn, lp; all in one category."""
    assert [kind.short_name for kind in CUSTOM_RESOURCES] == ["wp", "mr", "tn", "lp"]
    assert all(isinstance(rule, Rule) for kind in CUSTOM_RESOURCES for rule in kind.rules)
