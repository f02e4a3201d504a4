"""Plans, and their first version as it was frozen: what is changed runs beside a program that is not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize.key import data_key
from memoize.plan import LONGEST, LONGEST_WAIT, Plan
from tests.recordedpods import PODS

FROZEN = (PODS.parent / "skew" / "plan-v1.json").read_text(encoding="utf-8")
PLAN = Plan("memo", "k-1", share=True, capture=True, gc=False, wait_seconds=600)


def test_the_first_version_is_read_and_written_as_it_was_frozen() -> None:
    assert Plan.from_json(FROZEN) == PLAN
    assert PLAN.to_json() == FROZEN.strip()


def test_a_field_of_a_later_release_is_ignored() -> None:
    assert Plan.from_json(json.dumps({**json.loads(FROZEN), "nudge": True, "x": {"y": []}})) == PLAN


@pytest.mark.parametrize("field", ["share", "capture", "gc", "waitSeconds"])
def test_without_a_field_nothing_is_done_that_it_would_have_allowed(
    field: str,
) -> None:
    fields = json.loads(FROZEN)
    del fields[field]
    safe = {"share": {"share": False}, "capture": {"capture": False}, "gc": {"gc": True}}
    assert Plan.from_json(json.dumps(fields)) == PLAN._replace(**safe.get(field, {"wait_seconds": 0}))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": None},
        {"version": True},
        {"version": "1"},
        {"cache": None},
        {"dataKey": 1},
        {"share": "yes"},
        {"capture": 1},
        {"gc": None},
        {"waitSeconds": "600"},
        {"waitSeconds": 0.5},
        {"waitSeconds": True},
        {"x": "x" * LONGEST},
    ],
)
def test_what_is_no_plan_of_a_version_that_is_read_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="plan"):
        Plan.from_json(json.dumps({**json.loads(FROZEN), **changes}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"plan"'])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"plan|Expecting"):
        Plan.from_json(text)


@pytest.mark.parametrize(("wait", "waits"), [(-1, 0), (10**30, LONGEST_WAIT)])
def test_nobody_waits_for_ever_or_less_than_not_at_all(wait: int, waits: int) -> None:
    plan = Plan.from_json(json.dumps({**json.loads(FROZEN), "waitSeconds": wait}))
    assert plan.wait_seconds == waits


@given(st.integers(0, 253), st.booleans(), st.booleans(), st.booleans(), st.integers(0, LONGEST_WAIT))
def test_a_plan_survives_its_way_and_is_never_long(
    length: int, share: bool, capture: bool, gc: bool, wait: int
) -> None:
    plan = Plan("c" * length, data_key("k" * length), share, capture, gc, wait)
    assert len(plan.to_json()) < 1024
    assert Plan.from_json(plan.to_json()) == plan
