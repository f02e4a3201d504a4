"""What our containers ask for, and what that must not change."""

from fractions import Fraction
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube.quantity import quantity
from webhook.inject.qos import QoS, qos_class
from webhook.inject.resources import Work, ours

Json = dict[str, Any]

REQUESTS, LIMITS = {"cpu": "10m", "memory": "32Mi"}, {"cpu": "500m", "memory": "64Mi"}
CPU = st.sampled_from(["0", "1m", "7m", "10m", "0.1", "100m", "333m", "1", "1500m", "8"])
MEMORY = st.sampled_from(["0", "1Mi", "33M", "64Mi", "100Mi", "1Gi", "1e9"])
AMOUNTS = st.fixed_dictionaries({}, optional={"cpu": CPU, "memory": MEMORY})


def may_be(resources: Json) -> bool:
    """An API server takes no container that requests more than its limit."""
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    return all(quantity(requests[name]) <= quantity(limits[name]) for name in requests.keys() & limits.keys())


RESOURCES = st.fixed_dictionaries({}, optional={"requests": AMOUNTS, "limits": AMOUNTS}).filter(may_be)
CONTAINERS = st.lists(st.fixed_dictionaries({}, optional={"resources": RESOURCES}), max_size=3)
SPECS = st.fixed_dictionaries({"containers": CONTAINERS, "initContainers": CONTAINERS})
WORK = st.sampled_from(Work)


def spec(*regular: tuple[str, str], init: tuple[tuple[str, str], ...] = ()) -> Json:
    """A Pod whose containers ask for CPU so and so, by request and limit; and for some memory."""

    def container(request: str, limit: str) -> Json:
        return {
            "resources": {
                "requests": {"cpu": request, "memory": "64Mi"},
                "limits": {"cpu": limit, "memory": "128Mi"},
            }
        }

    return {
        "containers": [container(*each) for each in regular],
        "initContainers": [container(*each) for each in init],
    }


def cpu(pod: Json, work: Work) -> tuple[str, str]:
    found = ours(pod, work, REQUESTS, LIMITS)
    return found["requests"]["cpu"], found["limits"]["cpu"]


@pytest.mark.parametrize("work", Work)
def test_where_containers_may_ask_for_anything_ours_ask_for_what_the_admin_chose(work: Work) -> None:
    for pod in (
        {"containers": [{"resources": {"requests": {"cpu": "1"}}}]},
        {"containers": [*spec(("1", "1"))["containers"], {}]},
        {**spec(("1", "1")), "initContainers": [{}]},
    ):
        assert cpu(pod, work) == ("10m", "500m")


class Case(NamedTuple):
    """What ours ask for in a Pod: the CPU of request and limit, for a lookup, a capture, and both in one."""

    name: str
    pod: Json
    want_check: tuple[str, str]
    want_capture: tuple[str, str]
    want_both: tuple[str, str]


CASES = [
    Case(
        "Guaranteed, one large",
        spec(("3700m", "3700m"), ("100m", "100m")),
        want_check=("500m", "500m"),
        want_capture=("50m", "50m"),
        want_both=("200m", "200m"),
    ),
    Case(
        "Guaranteed, below our limit",
        spec(("300m", "300m")),
        want_check=("300m", "300m"),
        want_capture=("50m", "50m"),
        want_both=("200m", "200m"),
    ),
    Case(
        "Guaranteed, tiny",
        spec(("10m", "10m")),
        want_check=("200m", "200m"),
        want_capture=("50m", "50m"),
        want_both=("200m", "200m"),
    ),
    Case(
        "Guaranteed, tiny beside a large init container",
        spec(("10m", "10m"), init=(("1", "1"),)),
        want_check=("500m", "500m"),
        want_capture=("50m", "50m"),
        want_both=("200m", "200m"),
    ),
    Case(
        "limits are four times the requests",
        spec(("100m", "400m"), ("100m", "400m")),
        want_check=("125m", "500m"),
        want_capture=("50m", "200m"),
        want_both=("50m", "200m"),
    ),
    Case(
        "limits are up to twenty times the requests",
        spec(("100m", "100m"), ("10m", "200m")),
        want_check=("25m", "500m"),
        want_capture=("10m", "200m"),
        want_both=("10m", "200m"),
    ),
    Case(
        "limits are further from requests than ours",
        spec(("10m", "1")),
        want_check=("10m", "500m"),
        want_capture=("10m", "500m"),
        want_both=("10m", "500m"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_limits_are_no_further_from_requests_than_the_pods_own(case: Case) -> None:
    assert cpu(case.pod, Work.LOOK_UP) == case.want_check
    assert cpu(case.pod, Work.CAPTURE) == case.want_capture
    assert cpu(case.pod, Work.BOTH) == case.want_both


@pytest.mark.parametrize("work", Work)
def test_of_memory_only_the_request_changes(work: Work) -> None:
    pod = spec(("1", "1"))
    for request, limit, asked in (
        ("64Mi", "64Mi", "64Mi"),
        ("100Mi", "150Mi", "43Mi"),
        ("64Mi", "128Mi", "32Mi"),
        ("1Mi", "1Gi", "32Mi"),
    ):
        pod["containers"][0]["resources"]["requests"]["memory"] = request
        pod["containers"][0]["resources"]["limits"]["memory"] = limit
        found = ours(pod, work, REQUESTS, LIMITS)
        assert (found["requests"]["memory"], found["limits"]["memory"]) == (asked, "64Mi")


def with_ours(pod: Json, work: Work) -> Json:
    container = {"resources": ours(pod, work, REQUESTS, LIMITS)}
    kind = "initContainers" if work is Work.LOOK_UP else "containers"
    return {**pod, kind: [*pod[kind], container]}


@given(SPECS, WORK)
def test_the_qos_class_stays(pod: Json, work: Work) -> None:
    assert qos_class(with_ours(pod, work)) is qos_class(pod)


@given(SPECS, WORK)
def test_a_ratio_that_the_pod_keeps_to_is_kept_by_ours(pod: Json, work: Work) -> None:
    for name in ("cpu", "memory"):
        theirs = ratios(pod, name)
        if None in theirs or not theirs or qos_class(pod) is QoS.BEST_EFFORT:
            continue
        found = ratios(with_ours(pod, work), name)
        assert None not in found
        assert max(filter(None, found)) == max(filter(None, theirs))


def ratios(pod: Json, name: str) -> list[Fraction | None]:
    """Of each container; None for one that a LimitRange with a ratio would refuse."""
    found: list[Fraction | None] = []
    for container in (*pod["containers"], *pod["initContainers"]):
        resources = container.get("resources", {})
        most = resources.get("limits", {}).get(name, "0")
        limit, request = quantity(most), quantity(resources.get("requests", {}).get(name, most))
        found.append(limit / request if limit and request else None)
    return found


@given(SPECS, WORK)
def test_what_ours_ask_for_can_be_asked_for(pod: Json, work: Work) -> None:
    found = ours(pod, work, REQUESTS, LIMITS)
    for name, least in found.get("requests", {}).items():
        assert quantity(REQUESTS[name]) <= quantity(least)
        if all(r is None or r >= 1 for r in ratios(pod, name)):  # as an API server takes it
            assert quantity(least) <= quantity(found["limits"][name]) <= quantity(LIMITS[name])
        assert quantity(least) * 1000 % 1 == 0
