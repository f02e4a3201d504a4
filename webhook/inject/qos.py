"""A Pod's quality-of-service class: which one it has, and what a container of ours may ask for to keep it.

The class decides which Pods a node under pressure evicts first, so an injected container must not move it.
The rules are those of ComputePodQOS (kubernetes, pkg/apis/core/v1/helper/qos).
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Any

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?)([numkMGTPE]|[KMGTPE]i|)")
_FACTORS = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", start=1)},
}
_COUNTED = ("cpu", "memory")
_LONGEST_REMEMBERED = 32
"""Characters of a quantity that is kept in memory: a tenant may write endless ones."""


class QoS(StrEnum):
    """The classes, in the words of a Pod's `status.qosClass`."""

    GUARANTEED = "Guaranteed"
    BURSTABLE = "Burstable"
    BEST_EFFORT = "BestEffort"


def quantity(value: object) -> Fraction:
    """The number that a quantity (`250m`, `64Mi`, `1e3`) stands for; ValueError for anything else."""
    text = str(value)
    return _read(text) if len(text) > _LONGEST_REMEMBERED else _remembered(text)


def _read(value: str) -> Fraction:
    match = _QUANTITY.fullmatch(value)
    if match is None:
        raise ValueError(f"not a Kubernetes quantity: {value!r}")
    number, suffix = match.groups()
    return Fraction(number) * _FACTORS[suffix]


_remembered = lru_cache(maxsize=1024)(_read)
"""A fan-out's Pods all say the same few."""


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
