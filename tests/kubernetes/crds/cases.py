"""The table of `cases.yaml`, read."""

from pathlib import Path
from typing import Any

import yaml

API_VERSION = "millrace.dev/v1alpha1"
CASES: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())


def case_id(case: dict[str, Any]) -> str:
    """The place that its failing spec is wrong in."""
    return f"{case['kind']}.{case['field']}"


def document(case: dict[str, Any], which: str, name: str = "case") -> dict[str, Any]:
    """The whole object of `passes`, `fails` or `before`."""
    name = case.get("name", {}).get(which, name)
    return {"apiVersion": API_VERSION, "kind": case["kind"], "metadata": {"name": name}, "spec": case[which]}
