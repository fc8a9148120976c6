"""Alerts and dashboards speak of metrics that exist."""

import json
import re

import pytest
import yaml

from services.chassis.metrics import LATENCY_BUCKETS, REGISTRY
from tests.kubernetes.chart.rendering import CHART, SWITCHES, find, pod_of, render, workloads

FAMILIES = {metric.name: metric.type for metric in REGISTRY.collect()}
LABELS = {name: set(collector._labelnames) for name, collector in REGISTRY._names_to_collectors.items()}
SCRAPED = {"namespace", "pod", "millrace_dev_pool", "le"}  # what Prometheus adds to every series
RULES = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
BOARDS = yaml.safe_load((CHART / "files" / "dashboards.yaml").read_text())
EXPRESSIONS = [rule["expr"] for rule in RULES] + [
    query["expr"] for board in BOARDS.values() for panel in board["panels"] for query in panel["queries"].values()
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_of_an_expression_exists(expression):
    """Each name is a series of services/chassis/metrics.py, and each label that is grouped by is one of its labels."""
    named = re.findall(r"\bmillrace_\w+", re.sub(r"by \([^)]*\)", "", expression))
    assert named
    assert set(named) <= set(LABELS)
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")}
    assert grouped <= SCRAPED | set.intersection(*(LABELS[name] for name in named))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_counters_are_asked_for_their_rate(expression):
    """A counter or a histogram's series alone says nothing; a gauge has no rate."""
    for name in re.findall(r"\bmillrace_\w+", re.sub(r"by \([^)]*\)", "", expression)):
        before = expression[: expression.index(name)]
        assert before.endswith(("rate(", "increase(")) == name.endswith(("_total", "_bucket", "_count")), name


def test_the_bucket_of_the_alerts_is_one_that_is_counted():
    """`le` in an expression is the end of a bucket, written as the client library writes it."""
    asked = set(re.findall(r'le="([^"]*)"', "".join(EXPRESSIONS)))
    assert asked
    assert asked <= {str(bucket) for bucket in LATENCY_BUCKETS}


def test_every_alert_says_what_is_wrong_and_where_to_look():
    """Each has a name of its own, a severity, a summary and a description."""
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_dashboards_are_what_grafana_reads():
    """Each is JSON with a name of its own; panels have a place, a data source and queries."""
    objects = render(SWITCHES["monitoring"])
    for name in BOARDS:
        data = find(objects, "ConfigMap", f"millrace-dashboard-{name}")
        assert data["metadata"]["labels"]["grafana_dashboard"] == "1"
        board = json.loads(data["data"][f"millrace-{name}.json"])
        places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in board["panels"]]
        assert len(set(places)) == len(places) == len(BOARDS[name]["panels"])
        assert all(panel["targets"] and panel["datasource"]["uid"] == "${source}" for panel in board["panels"])


def test_monitors_ask_a_port_that_every_pod_has():
    """The PodMonitor of the services selects the pods of all components by their port `admin`."""
    objects = render(SWITCHES["monitoring"])
    monitor = find(objects, "PodMonitor", "millrace-services")["spec"]
    for workload in workloads(objects).values():
        assert monitor["selector"]["matchLabels"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        ports = {port["name"] for port in pod_of(workload)["containers"][0]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= ports
    for kind, name in (
        ("PodMonitor", "millrace-services"),
        ("PodMonitor", "millrace-workers"),
        ("PrometheusRule", "millrace-alerts"),
    ):
        assert find(objects, kind, name)["metadata"]["labels"]["release"] == "prometheus"
