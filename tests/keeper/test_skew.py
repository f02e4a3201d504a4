"""A keeper beside admission of another release: no step is lost, none hangs, none waits for nothing."""

import json
from typing import Any

import pytest

from memoize import names
from memoize.key import data_key
from tests.cluster import Cluster
from tests.keeper.keepers import decided, keeping
from tests.keeper.site import KEY, OUT, Site
from tests.recordedpods import PODS
from tests.waiting import until

FROZEN = json.loads((PODS.parent / "skew" / "plan-v1.json").read_text(encoding="utf-8"))
"""The first version, as it was frozen."""


@pytest.fixture
def site(cluster: Cluster) -> Site:
    return Site.new(cluster)


def pod(site: Site, plan: dict[str, Any], *, held: bool = True) -> str:
    return site.pod(held=held, change={names.PLAN: json.dumps(plan)})


def plan(**changes: Any) -> dict[str, Any]:
    return {**FROZEN, "dataKey": data_key(KEY), **changes}


@pytest.mark.parametrize("later", [{}, {"nudge": True, "store": {"kind": "postgresql"}}])
async def test_a_plan_of_the_first_version_is_answered_whatever_else_it_says(
    site: Site, later: dict[str, Any]
) -> None:
    site.store()
    async with keeping(site):
        name = pod(site, plan(**later))
        await decided(site, name)
    assert (site.label(name), site.value(name)) == (names.RESULT_HIT, OUT)


async def test_a_plan_that_says_the_least_is_answered_or_runs_alone(site: Site) -> None:
    least = {name: value for name, value in plan().items() if name in ("version", "cache", "dataKey")}
    async with keeping(site):
        name = pod(site, least)
        await decided(site, name)
        assert (site.label(name), site.reason(name)) == (names.RESULT_SKIPPED, "Miss")
        assert not site.held(name)


@pytest.mark.parametrize("version", [2, 0, "1", None])
async def test_a_gated_pod_with_a_plan_of_an_unknown_version_is_let_run_and_says_why(
    site: Site, version: Any
) -> None:
    site.store()
    async with keeping(site):
        name = pod(site, plan(version=version))
        await decided(site, name)
    assert not site.held(name)
    assert (site.label(name), site.reason(name)) == (names.RESULT_SKIPPED, "InvalidAnnotations")
    if version == 2:
        said = site.get(name)["metadata"]["annotations"][names.REASON]
        assert said == f"InvalidAnnotations: {names.PLAN}: a plan of version 2"


async def test_a_pod_that_runs_with_such_a_plan_ends_with_a_final_label_and_is_not_stored(site: Site) -> None:
    async with keeping(site):
        name = pod(site, plan(version=2), held=False)
        site.run(name)
        await until(lambda: site.label(name) == names.RESULT_SKIPPED)
    assert (site.label(name), site.reason(name)) == (names.RESULT_SKIPPED, "InvalidAnnotations")
    assert site.entry() is None


async def test_one_that_was_admitted_by_no_release_that_we_know_holds_up_nobody(site: Site) -> None:
    site.store()
    async with keeping(site):
        strange = [pod_of(site, number) for number in range(5)]
        known = site.pod(10)
        await decided(site, known, *strange)
    assert site.label(known) == names.RESULT_HIT
    assert set(site.labels(strange)) == {names.RESULT_SKIPPED}


def pod_of(site: Site, number: int) -> str:
    return site.pod(number, change={names.PLAN: json.dumps({"version": 3, "steps": [number]})})
