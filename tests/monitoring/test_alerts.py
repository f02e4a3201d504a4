"""The alerts: they name what there is, fire when they are to, and each has a runbook."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.test_pages import ROOT, anchors
from tests.manifests.rendering import MONITORING, find, overlay
from tests.monitoring import promtool
from tests.monitoring.existing import wrong
from tests.monitoring.promql import named

Json = dict[str, Any]
RULE = find(overlay(MONITORING), "PrometheusRule")
ALERTS: dict[str, Json] = {rule["alert"]: rule for group in RULE["spec"]["groups"] for rule in group["rules"]}
DESCRIPTIONS = {name: rule["annotations"]["description"] for name, rule in ALERTS.items()}
CASES = Path(__file__).with_name("alerts.yaml")
PAGE = "docs/monitoring.md"

alerts = pytest.mark.parametrize("alert", ALERTS.values(), ids=list(ALERTS))


@alerts
def test_an_alert_names_metrics_and_labels_that_there_are(alert: Json) -> None:
    assert wrong(alert["expr"]) == []


@alerts
def test_an_alert_says_what_is_wrong_how_bad_that_is_and_where_its_runbook_is(alert: Json) -> None:
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert page == PAGE
    assert anchor == alert["alert"].lower()
    assert anchor in anchors(ROOT / page)


@alerts
def test_an_alert_tells_only_labels_that_it_has(alert: Json) -> None:
    told = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["description"]))
    grouped = {label for one in named(alert["expr"]) if not one.metric for label in one.labels}
    assert told <= grouped


def test_the_page_has_a_runbook_for_each_alert_in_the_order_of_the_rules() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8").partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (\w+)$", page, re.MULTILINE) == list(ALERTS)


@alerts
def test_an_alert_is_tested_where_it_fires_and_where_it_does_not(alert: Json) -> None:
    cases = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    tried = [one for case in cases for one in case["alert_rule_test"] if one["alertname"] == alert["alert"]]
    assert {bool(one["exp_alerts"]) for one in tried} == {True, False}


@pytest.mark.slow
def test_alerts_fire_when_they_are_to(tmp_path: Path) -> None:
    checked, rules, cases = (tmp_path / name for name in ("checked.yaml", "rules.yaml", CASES.name))
    checked.write_text(yaml.safe_dump(RULE["spec"]))
    promtool.run("check", "rules", "--lint=all", "--lint-fatal", str(checked))
    told = [
        {**one, "annotations": {"description": one["annotations"]["description"]}} for one in ALERTS.values()
    ]
    rules.write_text(yaml.safe_dump({"groups": [{"name": "tested", "rules": told}]}))
    cases.write_bytes(CASES.read_bytes())
    promtool.run("test", "rules", str(cases))
