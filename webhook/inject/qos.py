"""A Pod's quality-of-service class: which one it has, and what a container of ours may ask for to keep it.

The class decides which Pods a node under pressure evicts first, so an injected container must not move it.
The rules are those of ComputePodQOS (kubernetes, pkg/apis/core/v1/helper/qos).
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from fractions import Fraction
from typing import Any

from kube.quantity import quantity

_COUNTED = ("cpu", "memory")


class QoS(StrEnum):
    """The classes, in the words of a Pod's `status.qosClass`."""

    GUARANTEED = "Guaranteed"
    BURSTABLE = "Burstable"
    BEST_EFFORT = "BestEffort"


def qos_class(spec: Mapping[str, Any]) -> QoS:
    """The class of a Pod with this spec. ValueError for a quantity that is none."""
    if spec.get("resources") is not None:
        return _class_of([spec["resources"]])
    return _class_of([container.get("resources") or {} for container in _containers(spec)])


def _class_of(parts: list[Mapping[str, Any]]) -> QoS:
    guaranteed = True
    anything = False
    for resources in parts:
        limits = _counted(resources.get("limits"))
        # The API server fills a missing request in from the limit; a Pod read from a file may still lack it.
        requests = limits | _counted(resources.get("requests"))
        anything = anything or bool(requests)
        guaranteed = guaranteed and set(limits) == set(_COUNTED) and requests == limits
    if not anything:
        return QoS.BEST_EFFORT
    return QoS.GUARANTEED if guaranteed else QoS.BURSTABLE


def _containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from spec.get("containers") or ()
    yield from spec.get("initContainers") or ()


def _counted(amounts: Mapping[str, Any] | None) -> dict[str, Fraction]:
    """The resources that count for the class, without zeros, which do not."""
    counted = {name: quantity(amount) for name, amount in (amounts or {}).items() if name in _COUNTED}
    return {name: amount for name, amount in counted.items() if amount > 0}
