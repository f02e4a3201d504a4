"""One workflow made three ways: without memoization, with Argo's own, with stepmemo. Pure."""

import json
from collections.abc import Iterator
from typing import Any

from memoize import names
from tests.e2e.kube import argo
from tests.e2e.shapes import NUMBER, Shape
from tests.e2e.steps import RANDOM

PLAIN, ARGO, STEPMEMO = WAYS = ("plain", "argo", "stepmemo")

_WITH_A_POD = ("container", "script", "containerSet")

Json = Any
ConfigMap = dict[str, str]
"""Of a cache: its name. Argo's full CRDs up to 3.7 ask for a `key` as well, which nothing reads; newer ones
refuse it."""


def made(shape: Shape, way: str, cache: ConfigMap) -> Json:
    """The Workflow of a shape, its blocks with that cache."""
    metadata = {"generateName": "own-"} | _one_way(shape.metadata, way, cache)
    return argo("Workflow", metadata, _one_way(repeatable(shape.spec), way, cache))


def objects(shape: Shape, way: str, cache: ConfigMap) -> list[Json]:
    """What the Workflow refers to."""
    return [_one_way(repeatable(one), way, cache) for one in shape.objects]


def memoized(shape: Shape) -> frozenset[str]:
    """The names of its memoized templates, wherever they are; "" for one within a call."""
    found = (one for whole in (shape.spec, *shape.objects) for one in _dicts(whole))
    return frozenset(one.get("name", "") for one in found if "memoize" in one)


def repeatable(value: Json) -> Json:
    """What is random in a shape says its step's key instead, so that a run without a cache tells the same."""
    if isinstance(value, list):
        return [repeatable(one) for one in value]
    if not isinstance(value, dict):
        return value
    if not any(kind in value for kind in _WITH_A_POD):
        return {part: repeatable(inner) for part, inner in value.items()}
    said = f"echo {value['memoize']['key'] if 'memoize' in value else value['name']}"
    text = json.dumps(value).replace(NUMBER, f"echo 1$({said} | tr -cd 0-9)").replace(RANDOM, said)
    return json.loads(text)


def _one_way(value: Json, way: str, cache: ConfigMap) -> Json:
    if isinstance(value, list):
        return [_one_way(one, way, cache) for one in value]
    if not isinstance(value, dict):
        return value
    found = {part: _one_way(inner, way, cache) for part, inner in value.items()}
    if names.MEMOIZE in found:
        found[names.MEMOIZE] = "true" if way == STEPMEMO else "false"
    if way == PLAIN:
        found.pop("memoize", None)
    elif "memoize" in found:
        found["memoize"]["cache"] = {"configMap": dict(cache)}
    return found


def _dicts(value: Json) -> Iterator[dict[str, Json]]:
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inner:
        yield from _dicts(part)
