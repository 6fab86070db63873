"""Alerts and dashboard: they can be parsed, the alerts fire when they should, and every metric in them exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rollwave import metrics
from scripts.generate_docs import metrics_table
from tests.shipped import DEPLOY
from tests.tools import Tool

PROMETHEUS, GRAFANA = DEPLOY / "compose" / "prometheus", DEPLOY / "compose" / "grafana"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((GRAFANA / "rollwave.json").read_text())


def queries() -> Iterator[str]:
    """The dashboard's queries. Grafana replaces their variable by an interval."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "1m")


def exposed() -> set[str]:
    """The names of the engine's metrics, as in /metrics."""
    names = set()
    for name, kind in re.findall(r"^\| `(\w+)` \| (\w+)", metrics_table(), re.MULTILINE):
        names |= {f"{name}_{part}" for part in ("bucket", "count", "sum")} if kind == "histogram" else {name}
    return names


def test_the_alert_rules_and_the_configuration_are_valid(promtool: Tool) -> None:
    assert f"{len(RULES)} rules found" in promtool.run("check", "rules", PROMETHEUS / "alerts.yml")
    promtool.run("check", "config", PROMETHEUS / "prometheus.yml")


def test_the_alerts_fire_in_their_test_cases(promtool: Tool) -> None:
    promtool.run("test", "rules", "alerts_test.yml", folder=PROMETHEUS)


def test_each_alert_has_a_test_case_and_says_what_to_do() -> None:
    cases = (PROMETHEUS / "alerts_test.yml").read_text()
    for rule in RULES:
        assert rule["alert"] in cases
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_dashboards_queries_are_valid(promtool: Tool, tmp_path: Path) -> None:
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool.run("check", "rules", file)


def test_every_metric_in_rules_and_dashboard_exists() -> None:
    asked = {
        name for text in (*queries(), *(rule["expr"] for rule in RULES)) for name in re.findall(r"\brollwave_\w+", text)
    }
    assert asked
    assert asked - exposed() == set()


def test_outcomes_that_alerts_use_are_exported_from_zero() -> None:
    # Prometheus sees no increase when a series begins with its first count.
    counted = {sample.labels["outcome"] for metric in metrics.reports.collect() for sample in metric.samples}
    named = {
        each for rule in RULES for found in re.findall(r'outcome=~"([^"]+)"', rule["expr"]) for each in found.split("|")
    }
    assert named | {"applied"} <= counted


def test_outcomes_in_the_rules_are_known_report_outcomes() -> None:
    documented = (DEPLOY.parent / "docs" / "reference" / "observability.md").read_text()
    for rule in RULES:
        for outcome in re.findall(r'outcome=~"([^"]+)"', rule["expr"]):
            assert all(f"`{each}`" in documented for each in outcome.split("|"))


def test_the_dashboard_matches_its_source() -> None:
    [source] = yaml.safe_load((GRAFANA / "datasource.yml").read_text())["datasources"]
    panels: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
