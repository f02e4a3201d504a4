"""What a container of ours asks for in a Pod: as little as its work needs, and nothing that changes the Pod.

Pure. The Pod stays in its QoS class, and within a `maxLimitRequestRatio` that its own containers keep to.
The scheduler counts containers that run side by side together, and of init containers the largest alone: a
look-up in an init container may ask for what the Pod asks for anyway (kubernetes, PodRequests in
component-helpers/resource).
"""

import math
from collections.abc import Iterator, Mapping
from enum import Enum
from fractions import Fraction
from typing import Any

from kube.quantity import quantity
from webhook.inject.qos import QoS, qos_class

_MILLI = Fraction(1, 1000)
_MEBIBYTE = 1024**2
_FAST, _SLOW = Fraction(200, 1000), Fraction(50, 1000)
"""CPU limits under which a run of the sidecar takes some 0.3 s and 1.2 s: it needs 60 ms of CPU, and of every
100 ms a container gets as many as its limit says. A step waits 2 s for either (`--check-timeout`,
`--capture-timeout`), and what is late is run, or not stored."""

Amounts = Mapping[str, str]


class Work(Enum):
    """What a container does, and when its request counts."""

    LOOK_UP = "look up"
    """In an init container."""
    CAPTURE = "capture"
    """Beside the step, for which nothing waits but the Pod's end."""
    BOTH = "look up and capture"
    """Beside the step, which waits for the look-up."""


def ours(spec: Mapping[str, Any], work: Work, requests: Amounts, limits: Amounts) -> dict[str, Amounts]:
    """The `resources` of a container of ours in a Pod with this spec; {} where it must have none.

    `requests` and `limits` are what an admin chose, cpu and memory of each. ValueError for a quantity of the
    Pod's that is none.
    """
    if spec.get("resources") is not None or qos_class(spec) is QoS.BEST_EFFORT:
        return {}
    least, most = dict(requests), dict(limits)
    if (ratio := _ratio(spec, "cpu")) is not None:
        least["cpu"], most["cpu"] = _cpu(spec, work, ratio, quantity(requests["cpu"]), limits["cpu"])
    if (ratio := _ratio(spec, "memory")) is not None:
        # Python is told its limit and needs all of it, so that only the request can change.
        bytes_ = max(quantity(requests["memory"]), quantity(limits["memory"]) / ratio)
        if bytes_ > quantity(requests["memory"]):
            mebibytes = math.ceil(bytes_ / _MEBIBYTE)
            fits = mebibytes * _MEBIBYTE < quantity(limits["memory"])
            least["memory"] = f"{mebibytes}Mi" if fits else limits["memory"]
    if qos_class(spec) is QoS.GUARANTEED:
        least = most  # as it is but where a container says a request of 0, from which there is no ratio
    return {"requests": least, "limits": most}


def _cpu(
    spec: Mapping[str, Any], work: Work, ratio: Fraction, chosen: Fraction, limit: str
) -> tuple[str, str]:
    """Request and limit that are no further apart than `ratio`."""
    match work:
        case Work.LOOK_UP:
            request = min(quantity(limit) / ratio, max(_asked(spec, "cpu"), _FAST / ratio))
        case Work.CAPTURE:
            request = min(_FAST / ratio, _SLOW)
        case Work.BOTH:
            request = _FAST / ratio
    request = min(max(request, chosen), quantity(limit))
    milli = math.ceil(request / _MILLI)
    most = min(quantity(limit), milli * _MILLI * ratio)
    return f"{milli}m", limit if most == quantity(limit) else f"{math.floor(most / _MILLI)}m"


def _ratio(spec: Mapping[str, Any], name: str) -> Fraction | None:
    """How far limit and request may be apart; None: any way.

    A LimitRange that says `maxLimitRequestRatio` asks for both in every container, init containers as well
    (kubernetes, limitRequestRatioConstraint in plugin/pkg/admission/limitranger), so that a Pod with one that
    lacks either is under none. Otherwise none of them can be further apart than is allowed.
    """
    ratios = []
    for container in _containers(spec):
        resources = container.get("resources") or {}
        limit = _amount(resources.get("limits"), name)
        # The API server fills a missing request in from the limit; a Pod read from a file may still lack it.
        request = _amount(resources.get("requests"), name, limit)
        if not limit or not request:
            return None
        ratios.append(limit / request)
    return max(ratios, default=None)


def _asked(spec: Mapping[str, Any], name: str) -> Fraction:
    """What the Pod's containers ask for together, or its largest init container, if that is more.

    At least: init containers that run on beside the others are not added.
    """
    sums = sum((_request(container, name) for container in spec.get("containers") or ()), Fraction())
    return max([sums, *(_request(container, name) for container in spec.get("initContainers") or ())])


def _request(container: Mapping[str, Any], name: str) -> Fraction:
    resources = container.get("resources") or {}
    return _amount(resources.get("requests"), name, _amount(resources.get("limits"), name))


def _amount(amounts: Mapping[str, Any] | None, name: str, otherwise: Fraction = Fraction()) -> Fraction:
    found = (amounts or {}).get(name)
    return otherwise if found is None else quantity(found)


def _containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from spec.get("containers") or ()
    yield from spec.get("initContainers") or ()
