"""Reads in a Pod's status how containers of ours fare in it: started, in trouble, or not there yet."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple

from argo import names as argo
from argo.shape import mapping
from argo.steppod import Owner, StepPod
from memoize import names

TROUBLES = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
        "CreateContainerConfigError",
        "PreCreateHookError",
        "CreateContainerError",
        "PreStartHookError",
        "RunContainerError",
    }
)
"""What a container waits for that may never come (kubelet: images/types.go, kuberuntime_container.go)."""
_NOT_RUN = frozenset({"StartError", "ContainerCannotRun"})
"""Why a container is over that the runtime could not start, such as one for another architecture."""


class State(Enum):
    """How a container of ours fares."""

    COMING = "coming"
    TROUBLED = "troubled"
    """It waits for what may never come."""
    STARTED = "started"
    BROKEN = "broken"
    """It is over without having started."""


class Container(NamedTuple):
    """A container of ours. `at`: since when it runs, or when it ended, by its node's clock."""

    name: str
    state: State
    why: str = ""
    at: datetime | None = None


class InjectedContainers(NamedTuple):
    """A Pod and how our containers fare in it. `step` is the node's id.

    `version` is its resourceVersion. `untouched`: it is Pending, nobody has deleted it, and nothing that the
    template says has started, so the Pod may go without a loss.
    """

    uid: str
    namespace: str
    name: str
    version: str
    owner: Owner | None
    step: str
    untouched: bool
    containers: tuple[Container, ...]


def look(pod: Mapping[str, Any]) -> InjectedContainers:
    """Read a Pod as the API server gave it; one that is known by its metadata alone has no containers."""
    metadata, spec, status = pod["metadata"], mapping(pod.get("spec")), mapping(pod.get("status"))
    namespace = metadata["namespace"]
    step = StepPod.parse(pod, namespace)
    pending = status.get("phase") == "Pending" and not metadata.get("deletionTimestamp")
    return InjectedContainers(
        uid=metadata["uid"],
        namespace=namespace,
        name=metadata["name"],
        version=metadata["resourceVersion"],
        owner=step.owner if isinstance(step, StepPod) else None,
        step=step.node_id,
        untouched=pending and _nothing_began(spec, status),
        containers=tuple(_ours(spec, status)),
    )


def _ours(spec: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[Container]:
    reported = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    by_name = {one["name"]: one.get("state") or {} for one in reported}
    for container in of_ours(spec):
        yield Container(container["name"], *_state(by_name.get(container["name"], {})))


def of_ours(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The containers that admission put into a Pod with this spec."""
    every = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return (container for container in every if is_ours(container))


def is_ours(container: Mapping[str, Any]) -> bool:
    """Whether admission put this container there.

    Not by its image: while the server is upgraded there are two.
    """
    command = container.get("command")
    return (
        container.get("name") in names.CONTAINERS
        and isinstance(command, list)
        and command[:1] == [names.IMAGE_ENTRYPOINT]
    )


def looks_up(container: Mapping[str, Any]) -> bool:
    """Whether a container of ours looks the key up.

    CHECK_CONTAINER does if it starts Python; else it only delivers the entrypoint. CAPTURE_CONTAINER does
    with the image volume, and has a time for it then (`-c`).
    """
    command = container["command"]
    return "--" in command if container["name"] == names.CHECK_CONTAINER else "-c" in command


def stores(container: Mapping[str, Any]) -> bool:
    """Whether a container of ours stores the outputs; it has a time for that (`-t`)."""
    return container["name"] == names.CAPTURE_CONTAINER and "-t" in container["command"]


def _state(state: Mapping[str, Any]) -> tuple[State, str, datetime | None]:
    if running := state.get("running"):
        return State.STARTED, "", _time(running.get("startedAt"))
    if over := state.get("terminated"):
        if over.get("reason") in _NOT_RUN:
            return State.BROKEN, _why(over), _time(over.get("finishedAt"))
        # What the kubelet ends before it began has no start.
        started = _time(over.get("startedAt"))
        return (State.STARTED, "", started) if started else (State.COMING, "", None)
    waiting = state.get("waiting") or {}
    return (State.TROUBLED if waiting.get("reason") in TROUBLES else State.COMING), _why(waiting), None


def _nothing_began(spec: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether all containers of the template are reported, and none has ever run; False in doubt."""
    template = {container["name"] for container in spec["containers"] if _is_template(container)}
    reported = {one["name"]: one for one in status.get("containerStatuses") or ()}
    return bool(template) and all(name in reported and _never_ran(reported[name]) for name in template)


def _is_template(container: Mapping[str, Any]) -> bool:
    """Whether Argo made it of the template: `main`, those of a containerSet, sidecars."""
    beside = (argo.WAIT_CONTAINER, argo.SUPERVISOR_CONTAINER, *names.CONTAINERS)
    variables: Sequence[Mapping[str, Any]] = container.get("env") or ()
    managed = any(variable.get("name") == argo.ENV_CONTAINER_NAME for variable in variables)
    return managed and container["name"] not in beside


def _never_ran(status: Mapping[str, Any]) -> bool:
    state, last = status.get("state") or {}, status.get("lastState") or {}
    waits = set(state) <= {"waiting"}
    return waits and not last and not status.get("restartCount") and not status.get("containerID")


def _why(state: Mapping[str, Any]) -> str:
    return ": ".join(filter(None, (state.get("reason", ""), state.get("message", "")[:_LONGEST])))


_LONGEST = 200
"""Characters of the kubelet's own words that are told on."""


def _time(text: str | None) -> datetime | None:
    """A metav1.Time; None for none, and for 1970: so a runtime says that there is none."""
    time = datetime.fromisoformat(text).astimezone(UTC) if text else None
    return time if time and time.year > 1970 else None
