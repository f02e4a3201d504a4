import pytest

from tests.monitoring.existing import wrong
from tests.monitoring.promql import Named, named


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("up", [("up", "")]),
        ('up{job="by (x)", pod!~"a"} == 1', [("up", "job pod")]),
        ("sum(rate(a_total[5m])) / 3", [("a_total", "")]),
        ("sum by (x, y) (a) or b unless c offset 10m", [("", "x y"), ("a", ""), ("b", ""), ("c", "")]),
        (
            "a * on (x) group_left (y) max without (z) (b)",
            [("a", ""), ("", "x"), ("", "y"), ("", "z"), ("b", "")],
        ),
        ("a > 14 * 86400 and b[1h:5m] > bool 1e3", [("a", ""), ("b", "")]),
        (
            'histogram_quantile(0.99, sum by (le) (rate(a_bucket{x="1"}[5m])))',
            [("", "le"), ("a_bucket", "x")],
        ),
    ],
)
def test_all_that_an_expression_names_is_found(expression: str, found: list[tuple[str, str]]) -> None:
    assert list(named(expression)) == [Named(metric, frozenset(labels.split())) for metric, labels in found]


@pytest.mark.parametrize(
    ("expression", "problems"),
    [
        ('sum by (reason) (stepmemo_steps_total{workflow_namespace="x", job="y"})', []),
        ("sum by (le, webhook) (stepmemo_admission_duration_seconds_bucket)", []),
        ("stepmemo_steps", ["no metric stepmemo_steps"]),
        ("stepmemo_hit_duration_seconds", ["no metric stepmemo_hit_duration_seconds"]),
        ('stepmemo_steps_total{webhook="pods"}', ["stepmemo_steps_total has no webhook"]),
        ("sum by (webhook) (stepmemo_steps_total)", ["nothing has webhook"]),
    ],
)
def test_what_there_is_not_is_told(expression: str, problems: list[str]) -> None:
    assert wrong(expression) == problems
