"""A container's variables: literal values, `fieldRef`, and `$(NAME)` expansion as the kubelet does it.

Sources: kubernetes/website, "Define Dependent Environment Variables"; k8s.io/kubernetes
third_party/forked/golang/expansion.
"""

import re
from collections.abc import Mapping
from typing import Any

_REFERENCE = re.compile(r"\$(\$)|\$\(([^)]*)\)")
_MAP_KEY = re.compile(r"metadata\.(annotations|labels)\['(.+)'\]")


class UnsupportedPodError(Exception):
    """The Pod asks for something that the devcluster does not do; the text says what."""


def environment(
    container: Mapping[str, Any], pod: Mapping[str, Any], base: Mapping[str, str]
) -> dict[str, str]:
    """`base` and then the container's own variables in their order, each seeing those before it."""
    variables = dict(base)
    for entry in container.get("env") or []:
        if (source := entry.get("valueFrom")) is not None:
            variables[entry["name"]] = field(pod, source["fieldRef"]["fieldPath"])
        else:
            variables[entry["name"]] = expand(entry.get("value") or "", variables)
    return variables


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` replaced where NAME is set and left alone where it is not; `$$` is a plain `$`."""

    def replacement(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        return variables.get(match[2], match[0])

    return _REFERENCE.sub(replacement, text)


def field(pod: Mapping[str, Any], path: str) -> str:
    """The value of a downward-API field of the Pod, "" where it is not set."""
    if match := _MAP_KEY.fullmatch(path):
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return str(value)
