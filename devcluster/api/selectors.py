"""Label and field selectors, as in the queries of list and watch and in webhook configurations."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from devcluster.api.errors import bad_request
from devcluster.api.kinds import EVENT, POD, Kind, Object

Predicate = Callable[[Object], bool]
_SET = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^()]*)\)$")
_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")
_NAME = re.compile(r"^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$")


def by_labels(text: str) -> Predicate:
    """A `labelSelector` (`a=b,c!=d,e,!f,g in (h,i)`) as a test of objects; ApiError 400 if it is none."""
    tests = [_label_test(part.strip()) for part in _COMMA_OUTSIDE_PARENTHESES.split(text) if part.strip()]

    def matches(obj: Object) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _label_test(text: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _SET.match(text):
        key, operator, listed = found.groups()
        values = [value.strip() for value in listed.split(",")]
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    for operator in ("!=", "==", "="):
        key, found_operator, value = (part.strip() for part in text.partition(operator))
        if found_operator:
            _check(key)
            if value:
                _check(value)
            if operator == "!=":
                return lambda labels: labels.get(key) != value
            return lambda labels: labels.get(key) == value
    if text.startswith("!"):
        key = _check(text[1:].strip())
        return lambda labels: key not in labels
    key = _check(text)
    return lambda labels: key in labels


def _check(text: str) -> str:
    if not _NAME.match(text):
        raise bad_request(f"unable to parse requirement: found '{text}', expected: identifier")
    return text


def label_selector_matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a metav1.LabelSelector (`matchLabels`, `matchExpressions`) takes these labels."""
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _expression_matches(expression, labels) for expression in selector.get("matchExpressions") or []
    )


def _expression_matches(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise bad_request(f'"{expression["operator"]}" is not a valid label selector operator')


def by_fields(kind: Kind, text: str) -> Predicate:
    """A `fieldSelector` of the fields that the kind knows, as a test; ApiError 400 for other fields."""
    known = ["metadata.name", "metadata.namespace"]
    if kind == POD:
        known += ["spec.nodeName", "status.phase"]
    if kind == EVENT:
        known += ["involvedObject.kind", "involvedObject.name"]
    tests: list[tuple[list[str], str, bool]] = []
    for part in filter(None, text.split(",")):
        negated = "!=" in part
        field, _, value = part.partition("!=" if negated else "=")
        if field not in known:
            names = ", ".join(f'"{name}"' for name in known)
            raise bad_request(f'"{field}" is not a known field selector: only {names}')
        tests.append((field.split("."), value.removeprefix("="), negated))

    def matches(obj: Object) -> bool:
        return all((_field(obj, path) == value) != negated for path, value, negated in tests)

    return matches


def _field(obj: Object, path: list[str]) -> str:
    value: Any = obj
    for part in path:
        value = (value or {}).get(part)
    return value or ""
