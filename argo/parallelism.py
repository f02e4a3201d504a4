"""Which workflows are a controller's of Argo, and whether it bounds how many run at once, by its ConfigMap.

Read as config/controller.go reads it (parseConfigMap, v3.5 to v4.1): one key `config` that holds all of it,
or one key for each setting. What cannot be told counts as a bound.
"""

from collections.abc import Mapping

from argo.shape import mapping

_SETTINGS = ("parallelism", "namespaceParallelism")


def limited_by(config_map: Mapping[str, object]) -> bool:
    """Whether the controller with this ConfigMap may keep a workflow waiting for others to end."""
    data = mapping(config_map.get("data"))
    whole = str(data.get("config", ""))
    return any(str(data.get(name, "0")).strip() not in ("", "0") or name in whole for name in _SETTINGS)


def instance_id(config_map: Mapping[str, object]) -> str | None:
    """The instanceID of the controller with this ConfigMap, "" for none; None where it cannot be told."""
    data = mapping(config_map.get("data"))
    return None if "instanceID" in str(data.get("config", "")) else str(data.get("instanceID", "")).strip()
