"""What kubectl and client libraries ask before they ask for objects: versions, groups, resources, health."""

from typing import Any

from devcluster.api.kinds import KINDS, Kind

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
VERSION = {
    "major": "1",
    "minor": "35",
    "gitVersion": "v1.35.0+stepmemo-devcluster",
    "platform": "linux/amd64",
}


def document(path: str) -> dict[str, Any] | str | None:
    """The document at a path that needs no rights, None for every other path."""
    match path.strip("/").split("/"):
        case ["version"]:
            return VERSION
        case ["healthz"] | ["readyz"] | ["livez"]:
            return "ok"
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["api", "v1"]:
            return _resources("", "v1")
        case ["apis"]:
            groups = sorted({(kind.group, kind.version) for kind in KINDS if kind.group})
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(*group) for group in groups],
            }
        case ["apis", group, version] if any(
            (kind.group, kind.version) == (group, version) for kind in KINDS
        ):
            return _resources(group, version)
    return None


def _group(group: str, version: str) -> dict[str, Any]:
    served = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [served], "preferredVersion": served}


def _resources(group: str, version: str) -> dict[str, Any]:
    kinds = [kind for kind in KINDS if (kind.group, kind.version) == (group, version)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [entry for kind in kinds for entry in _entries(kind)],
    }


def _entries(kind: Kind) -> list[dict[str, Any]]:
    entry = {
        "name": kind.plural,
        "singularName": kind.name.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.name,
        "verbs": _VERBS if kind.stored else ["create"],
    }
    if not kind.status_subresource:
        return [entry]
    status = {**entry, "name": f"{kind.plural}/status", "verbs": ["get", "patch", "update"]}
    return [entry, status]
