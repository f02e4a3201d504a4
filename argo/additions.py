"""What Argo adds to the containers of a template, and what they are without it.

From workflow/controller/workflowpod.go, workflowpod_layout.go and workflow/common/common.go, v3.5 to v4.1,
where no other source is named. What was added is told by its name alone, so whatever a later version adds
counts as the author's until it is listed here.
"""

import posixpath
from collections.abc import Container, Mapping, Sequence
from typing import Any

from argo import names
from argo.layout import ContainerRef

ENV_ARGS_FILE = "ARGO_CONTAINER_ARGS_FILE"
"""Set where the container's arguments take more than 128 KiB and lie in a ConfigMap (from 3.7 on)."""

_PREFIX = "ARGO_"
_OTHERS = frozenset({"GODEBUG", "TRACEPARENT", "TRACESTATE"})
"""GODEBUG: of the executor's containers in 3.5 (newExecContainer). The others name the trace of one Pod, from
4.0 on (telemetry.Carrier)."""

_EXECUTABLE, _EMISSARY = "argoexec", "emissary"
"""`argoexec emissary OPTIONS -- COMMAND` is how each container but the init containers starts its command."""

_VOLUMES = {
    names.VOLUME: "emptyDir",
    "tmp-dir-argo": "emptyDir",
    "input-artifacts": "emptyDir",
    "argo-staging": "emptyDir",
    "argoexec-bin": "image",
    "argo-env-config": "configMap",
}
"""Volumes whose mounts Argo puts into a template's containers, and of what kind each is: some are not in
every Pod, and a template may then have one of that name. Where they are mounted differs between layouts."""


def is_argos_variable(name: str, declared: Container[str]) -> bool:
    """Whether a variable of a container is Argo's; `declared` are the names that its template gives it."""
    return (name.startswith(_PREFIX) or name in _OTHERS) and name not in declared


def is_argos_mount(mount: Mapping[str, Any], volume: Mapping[str, Any]) -> bool:
    """Whether a volumeMount of a template's container is Argo's, or that of the service account's token.

    `volume` is the Pod's volume that it names, empty where there is none.
    """
    if posixpath.normpath(str(mount.get("mountPath", ""))) == names.SERVICEACCOUNT_DIR:
        return "projected" in volume
    return _VOLUMES.get(str(mount.get("name"))) in volume


def own_command(command: Sequence[Any]) -> list[Any]:
    """The command that template, patch or image gave the container, without Argo's own before it."""
    words = list(command)
    if words[1:2] == [_EMISSARY] and posixpath.basename(str(words[0])) == _EXECUTABLE and "--" in words:
        return words[words.index("--") + 1 :]
    return words


def has_offloaded_arguments(ref: ContainerRef) -> bool:
    """Whether the container's arguments are not in the Pod."""
    return ENV_ARGS_FILE in ref.variables
