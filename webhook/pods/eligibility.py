"""Which Pods must not get containers of ours, whatever their author asked for."""

from collections.abc import Mapping
from typing import Any

from argo import names as argo
from argo.layout import Layout
from memoize import names
from memoize.reasons import Reason

_ARCHITECTURES = ("amd64", "arm64")
"""What our image is built for. A container whose image does not start keeps its step Pending for ever."""
_INSIDE = tuple(f"{path}/" for path in (names.SHARED_DIR, names.BIN_DIR, names.IMAGE_DIR, names.TOKEN_DIR))


def blocker(pod_spec: Mapping[str, Any], shape: Layout) -> tuple[Reason, str] | None:
    """Why neither check nor capture may go into a Pod with this spec and layout; None: they may."""
    if (platform := _foreign_platform(pod_spec)) is not None:
        return Reason.UNSUPPORTED_TEMPLATE, platform
    if (clash := _clash(pod_spec, shape)) is not None:
        return Reason.NAME_CLASH, clash
    if (why := _cannot_wrap(pod_spec, shape)) is not None:
        return Reason.CANNOT_WRAP_COMMAND, why
    return None


def _foreign_platform(pod_spec: Mapping[str, Any]) -> str | None:
    selector = pod_spec.get("nodeSelector") or {}
    if "windows" in ((pod_spec.get("os") or {}).get("name"), selector.get("kubernetes.io/os")):
        return "a Windows Pod"
    architecture = selector.get("kubernetes.io/arch", _ARCHITECTURES[0])
    return None if architecture in _ARCHITECTURES else f"architecture {architecture}"


def _clash(pod_spec: Mapping[str, Any], shape: Layout) -> str | None:
    """What of the Pod's own has a name or a place that we need.

    All our names are kept free, whichever way the entrypoint is delivered and the cache is reached: another
    `--injection` or `--access` must not change which steps are memoized.
    """
    for ref in shape.containers:
        if ref.name in names.CONTAINERS:
            return f"container {ref.name}"
        for path in ref.mounts:
            if f"{path}/".startswith(_INSIDE):
                return f"mount {path} of container {ref.name}"
    clashing = next((v for v in pod_spec.get("volumes") or () if v.get("name") in names.VOLUMES), None)
    return None if clashing is None else f"volume {clashing['name']}"


def _cannot_wrap(pod_spec: Mapping[str, Any], shape: Layout) -> str | None:
    """What keeps a container more from working here, or makes it change what the Pod does."""
    if pod_spec.get("shareProcessNamespace") or pod_spec.get("hostPID"):
        # Argo ends a container by a signal to PID 1, which here is the Pod's own or the node's.
        return "its containers share a process namespace"
    if pod_spec.get("restartPolicy", "Always") == "Always":
        return "restartPolicy Always starts ended containers again"
    if shape.token_mount is None:
        return "no service account token is mounted"
    if shape.argo_mount is None:
        return f"{argo.DIR} is not mounted"
    return None
