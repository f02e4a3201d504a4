"""What an earlier pass of ours left in a Pod, and taking it out again where others left only a part of it.

Pure. The API server asks again after another webhook changed a Pod (reinvocationPolicy). One that takes a
container, a volume or an entrypoint of ours away, or writes a command anew, would leave a step that cannot
start, or one that runs beside an answer. Such a Pod is made what it was before us, and then decided like any
other.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from argo import layout
from argo.layout import ContainerRef, Layout
from kube.jsonpatch import Op, apply, remove, replace
from memoize import names

Json = dict[str, Any]

_ENTRYPOINTS = (names.ENTRYPOINT, names.VOLUME_ENTRYPOINT)
_MARKS = (names.RESULT_GATED, names.RESULT_MISS, names.RESULT_SKIPPED)
"""Words of names.RESULT that admission writes beside a plan."""


def cleared(pod: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Op]]:
    """The Pod as it was before us, and the operations that make it so; the Pod itself where nothing is amiss.

    A Pod that an earlier pass changed and that still has all of it is not touched, nor is one that none did,
    nor one whose entrypoint another webhook has put behind a program of its own (one that fetches secrets and
    then starts what it is told, for instance): nobody could take that entrypoint out, and without its volume
    the container would not start.
    """
    if not _has_any(pod) or any(_starts_through_another(container) for container in _containers(pod)):
        return pod, []
    shape = layout.read(pod)
    if _is_whole(pod, shape) and _is_marked(pod):
        return pod, []
    ops = [*_without_marks(pod), *_without_containers(pod, shape)]
    changed: Json = json.loads(json.dumps(pod))  # a quarter of the time that copy.deepcopy takes
    for op in ops:
        apply(changed, op)
    return changed, ops


def injected(pod: Mapping[str, Any]) -> bool:
    """Whether a container of ours is there, whichever way the entrypoint got there."""
    return any(_is_ours(container) for container in _containers(pod))


def _has_any(pod: Mapping[str, Any]) -> bool:
    """Whether there is anything that may be of ours: most Pods have nothing, and are not looked at closer."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    return (
        names.PLAN in (metadata.get("annotations") or {})
        or any(gate.get("name") == names.SCHEDULING_GATE for gate in spec.get("schedulingGates") or ())
        or any(
            container.get("name") in names.CONTAINERS or (container.get("command") or [""])[0] in _ENTRYPOINTS
            for container in _containers(pod)
        )
    )


def _containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    spec = pod.get("spec") or {}
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def _is_ours(container: Mapping[str, Any]) -> bool:
    return container.get("name") in names.CONTAINERS and (container.get("command") or [])[:1] == [
        names.IMAGE_ENTRYPOINT
    ]


def _is_marked(pod: Mapping[str, Any]) -> bool:
    """Whether what a keeper goes by is there in one piece, or not at all: gate, plan and label."""
    metadata = pod["metadata"]
    plan = names.PLAN in (metadata.get("annotations") or {})
    word = (metadata.get("labels") or {}).get(names.RESULT)
    if any(gate.get("name") == names.SCHEDULING_GATE for gate in pod["spec"].get("schedulingGates") or ()):
        return plan and word == names.RESULT_GATED
    return not plan or word in _MARKS


def _is_whole(pod: Mapping[str, Any], shape: Layout) -> bool:
    """Whether every entrypoint of ours has what it needs, and every container is wrapped that must be."""
    wrapped = {ref.name: ref for ref in shape.managed if _is_wrapped(ref)}
    ours = {ref.name: ref for ref in shape.containers if _is_ours(ref.container)}
    if not wrapped and not ours:
        return True
    check, capture = ours.get(names.CHECK_CONTAINER), ours.get(names.CAPTURE_CONTAINER)
    volumes = {volume.get("name") for volume in pod["spec"].get("volumes") or ()}
    mounted = [mount.get("name") for ref in ours.values() for mount in ref.mounts.values()]
    if not volumes.issuperset(name for name in mounted if name in names.VOLUMES):
        return False
    if not all(_can_start(ref, check, volumes) for ref in wrapped.values()):
        return False
    if capture is None and any("-r" in _options(ref) for ref in wrapped.values()):
        return False
    beside = capture is not None and "-c" in _words(capture)
    if not beside and any("-t" in _options(ref) for ref in wrapped.values()):
        return False  # it would wait for a look-up that nobody makes
    return {ref.name for ref in _to_be_wrapped(shape, check, capture, beside)} <= wrapped.keys()


def _to_be_wrapped(
    shape: Layout, check: ContainerRef | None, capture: ContainerRef | None, beside: bool
) -> tuple[ContainerRef, ...]:
    """Containers that must not run beside an answer, or whose end decides whether outputs are kept."""
    if check is not None and "--" in _words(check):
        return shape.managed
    if beside:
        return tuple(ref for ref in shape.managed if ref.kind == "containers")
    return shape.recorded if capture is not None else ()


def _can_start(ref: ContainerRef, check: ContainerRef | None, volumes: set[Any]) -> bool:
    """Whether the entrypoint is there when the container starts."""
    program = _words(ref)[0]
    for path in (names.SHARED_DIR, names.BIN_DIR if program == names.ENTRYPOINT else names.IMAGE_DIR):
        mount = ref.mounts.get(path)
        if mount is None or mount.get("name") != names.MOUNTS[path] or names.MOUNTS[path] not in volumes:
            return False
    if program == names.VOLUME_ENTRYPOINT:
        return True
    if check is None or check.kind != "initContainers":
        return False
    return ref.kind == "containers" or check.index < ref.index


def _is_wrapped(ref: ContainerRef) -> bool:
    words = _words(ref)
    return words[:1] in ([path] for path in _ENTRYPOINTS) and "--" in words


def _starts_through_another(container: Mapping[str, Any]) -> bool:
    """Whether the container starts an entrypoint of ours by another program."""
    command, args = container.get("command") or [], container.get("args") or []
    return command[:1] not in ([path] for path in _ENTRYPOINTS) and any(
        path in (*command, *args) for path in _ENTRYPOINTS
    )


def _words(ref: ContainerRef) -> list[Any]:
    return list(ref.container.get("command") or ())


def _options(ref: ContainerRef) -> list[Any]:
    """The arguments of our entrypoint before the container's own command."""
    words = _words(ref)
    return words[: words.index("--")]


def _without_marks(pod: Mapping[str, Any]) -> Iterator[Op]:
    metadata = pod["metadata"]
    gates = pod["spec"].get("schedulingGates") or ()
    for index in reversed(range(len(gates))):
        if gates[index].get("name") == names.SCHEDULING_GATE:
            yield remove(("spec", "schedulingGates", index))
    if names.PLAN in (metadata.get("annotations") or {}):
        yield remove(("metadata", "annotations", names.PLAN))
    if names.RESULT in (metadata.get("labels") or {}):
        yield remove(("metadata", "labels", names.RESULT))


def _without_containers(pod: Mapping[str, Any], shape: Layout) -> Iterator[Op]:
    wrapped = [ref for ref in shape.managed if _is_wrapped(ref)]
    if not wrapped and not any(_is_ours(ref.container) for ref in shape.containers):
        return
    for ref in wrapped:
        words = _words(ref)
        yield replace(("spec", ref.kind, ref.index, "command"), words[words.index("--") + 1 :])
    for ref in shape.containers:  # a mount must not outlive its volume, wherever others may have put it
        mounts = ref.container.get("volumeMounts") or ()
        for index in reversed(range(len(mounts))):
            if mounts[index].get("name") in names.VOLUMES:
                yield remove(("spec", ref.kind, ref.index, "volumeMounts", index))
    # Who changed ours may have given it another command.
    for ref in reversed([ref for ref in shape.containers if ref.name in names.CONTAINERS]):
        yield remove(("spec", ref.kind, ref.index))
    volumes = pod["spec"].get("volumes") or ()
    for index in reversed(range(len(volumes))):
        if volumes[index].get("name") in names.VOLUMES:
            yield remove(("spec", "volumes", index))
