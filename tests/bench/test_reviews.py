import json

import pytest

from argo.steppod import Owner, StepPod
from bench import reviews
from webhook import review
from webhook.pods import decision
from webhook.submit.verdict import review_object


def test_the_pod_is_one_that_is_injected_and_as_large_as_the_issue_says() -> None:
    body = json.dumps(reviews.of_pod("ns", "wf", "uid"), separators=(",", ":")).encode()
    assert 18_000 < len(body) < 22_000
    asked = review.parse(body)
    assert asked.object is not None
    step = StepPod.parse(asked.object, "ns")
    assert isinstance(step, StepPod)
    assert step.owner == Owner("ns", "wf", "uid")
    assert decision.screen(step) is None


def test_the_workflow_has_its_size_and_every_template_is_taken_over() -> None:
    body = json.dumps(reviews.of_workflow("ns", 100_000, 40)).encode()
    assert 98_000 < len(body) <= 100_000
    asked = review.parse(body)
    verdict = review_object(asked.kind, asked.object or {}, None, "CREATE", {}, "enforce")
    assert verdict.errors == verdict.warnings == []
    assert sum(op["op"] == "remove" for op in verdict.ops) == 40


def test_templates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="40 templates need more than 1000 bytes"):
        reviews.of_workflow("ns", 1000, 40)


def test_managed_fields_name_fields_and_list_members_and_no_values() -> None:
    written = {"spec": {"containers": [{"name": "a", "command": ["x"]}], "finalizers": ["secret"]}}
    assert reviews.managed(written) == {
        "f:spec": {
            "f:containers": {'k:{"name": "a"}': {".": {}, "f:name": {}, "f:command": {}}},
            "f:finalizers": {},
        }
    }
