"""The dashboard: each panel says what it shows, in which unit, and asks only for what there is."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.exposed import everything, families, ours
from tests.manifests.rendering import MONITORING, find, overlay
from tests.monitoring import promtool
from tests.monitoring.existing import existing, wrong
from tests.monitoring.promql import named

Json = dict[str, Any]
CONFIG_MAP = find(overlay(MONITORING), "ConfigMap", "stepmemo-dashboard")
(FILE,) = CONFIG_MAP["data"]
DASHBOARD: Json = json.loads(CONFIG_MAP["data"][FILE])
PANELS: list[Json] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES: dict[str, Json] = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
INTERVALS = {"$__rate_interval": "5m", "$__range": "6h"}
"""What Grafana puts into expressions by itself."""

panels = pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])


def expressions(panel: Json) -> Iterator[tuple[str, str]]:
    """Each with its legend."""
    for target in panel["targets"]:
        expression = target["expr"]
        for name, seconds in INTERVALS.items():
            expression = expression.replace(name, seconds)
        yield expression, target["legendFormat"]


def test_grafanas_sidecar_finds_it() -> None:
    assert CONFIG_MAP["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert FILE == "stepmemo.json"


@panels
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: Json) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]


@panels
def test_a_panel_asks_the_data_source_that_is_chosen(panel: Json) -> None:
    assert VARIABLES["datasource"]["type"] == "datasource"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == chosen
    assert all(target["datasource"] == chosen for target in panel["targets"])


@panels
def test_a_panel_asks_for_what_there_is(panel: Json) -> None:
    assert [problem for expression, _ in expressions(panel) for problem in wrong(expression)] == []


@panels
def test_a_legend_names_labels_that_are_left(panel: Json) -> None:
    for expression, legend in expressions(panel):
        left = {label for one in named(expression) if not one.metric for label in one.labels}
        assert set(re.findall(r"{{(\w+)}}", legend)) == left - {"le"}


@panels
def test_what_is_ours_is_that_of_the_programs_that_are_chosen(panel: Json) -> None:
    for expression, _ in expressions(panel):
        for one in named(expression):
            if one.metric.startswith(("stepmemo_", "process_")):
                by_namespace = "workflow_namespace" in existing()[one.metric]
                assert {"job", "instance", *(["workflow_namespace"] if by_namespace else [])} <= one.labels


def test_variables_are_filled_from_what_there_is() -> None:
    for variable in VARIABLES.values():
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            assert wrong(f"sum by ({label}) ({selector})") == []
            assert variable["query"]["query"] == variable["definition"]
            assert variable["datasource"]["uid"] == "${datasource}"
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used == VARIABLES.keys() | {name.strip("$") for name in INTERVALS}


def test_without_namespaces_told_apart_everything_is_shown() -> None:
    """A label that is not there is an empty one, which the value for all has to fit."""
    assert re.fullmatch(VARIABLES["workflow_namespace"]["allValue"], "") is not None


def test_no_metric_is_left_out_but_by_intent() -> None:
    asked = {
        one.metric for panel in PANELS for expression, _ in expressions(panel) for one in named(expression)
    }
    shown = {name.removesuffix("_bucket").removesuffix("_count") for name in asked}
    assert set(ours(everything())) - shown == {
        "stepmemo_artifact_checks_total",
        "stepmemo_body_bytes",
        "stepmemo_breaker_open",
        "stepmemo_build_info",
        "stepmemo_cache_evicted_bytes_total",
        "stepmemo_certificate_flaws_total",
        "stepmemo_keeper_ready",
        "stepmemo_last_hit_updates_total",
        "stepmemo_nudges_total",
        "stepmemo_view_kept_bytes",
    }


def test_panels_have_their_own_ids_and_places() -> None:
    everywhere = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everywhere}) == len(everywhere)
    for one, other in combinations((panel["gridPos"] for panel in everywhere), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


@pytest.mark.parametrize("namespaces", [0, 2], ids=["in one", "by Namespace"])
def test_every_panel_shows_what_the_programs_show(namespaces: int, tmp_path: Path) -> None:
    asked = [all_chosen(expression) for panel in PANELS for expression, _ in expressions(panel)]
    one = [{"labels": "{}", "value": 1}]
    cases = {
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": list(series(namespaces)),
                "promql_expr_test": [
                    {"expr": f"clamp_max(count({expression}), 1)", "eval_time": "10m", "exp_samples": one}
                    for expression in asked
                ],
            }
        ],
    }
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump(cases))
    promtool.run("test", "rules", str(file))


def all_chosen(expression: str) -> str:
    for name, variable in VARIABLES.items():
        expression = expression.replace(f"${name}", variable.get("allValue", ""))
    return expression


def series(namespaces: int) -> Iterator[Json]:
    """What Prometheus has of a program that does a bit of everything, and of the API server."""
    target = {"job": "program", "instance": "1", "pod": "a"}
    samples = [sample for family in families(everything(namespaces)).values() for sample in family.samples]
    shown = [(sample.name, {**sample.labels, **target}) for sample in samples]
    fail_open = "apiserver_admission_webhook_fail_open_count", {"name": "pods.stepmemo.dev", "type": "admit"}
    for name, labels in [*shown, fail_open]:
        selector = ", ".join(f"{label}={json.dumps(value)}" for label, value in labels.items())
        yield {"series": f"{name}{{{selector}}}", "values": "1+1x30"}
