"""Reads a step Pod: the containers that Argo manages, its files, its token and its template.

Four shapes are in use: `init` and `wait` around `main` (all versions), `supervisor` beside `main` (the
init-less layout, version.HAS_A_SUPERVISOR), and either without that auxiliary container, for `data` and most
`resource` templates (workflow/controller/workflowpod.go and workflowpod_layout.go).
"""

import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from argo import names, version
from argo.version import Version

_NO_TIME = "0001-01-01T"
"""Go's zero time."""
_AUXILIARIES = (names.WAIT_CONTAINER, names.SUPERVISOR_CONTAINER)
_EXECUTORS = (names.INIT_CONTAINER, *_AUXILIARIES)
"""Containers that run the executor's image in every template; for `data` and `resource`, `main` too."""
_PLUGIN_SIDECAR_PREFIX = "artifact-plugin-"
_PLUGIN_INIT_PREFIX = "init-artifact-"


@dataclass(frozen=True, slots=True)
class ContainerRef:
    """A container, and where it stands: `spec.<kind>[<index>]`.

    Read once, since much is asked of it: `variables` is its literal environment, `mounts` are its
    volumeMounts by their path, normalized.
    """

    kind: str
    index: int
    name: str
    container: Mapping[str, Any]
    variables: Mapping[str, Any]
    mounts: Mapping[str, Mapping[str, Any]]

    @property
    def blocker(self) -> str | None:
        """Why nothing may go before this container's command, in words that follow its name; None: it may.

        Hooks and restarts belong to a process that runs. On a hit there is none: Kubernetes would fail a
        postStart hook in a container that has ended, or start the container again.
        """
        if not self.container.get("command"):
            return "has no command of its own"
        if self.container.get("lifecycle"):
            return "has lifecycle hooks"
        if self.container.get("restartPolicy") == "Always":
            return "has restartPolicy Always"
        if self.container.get("restartPolicyRules"):
            return "has restartPolicyRules"
        return None


@dataclass(frozen=True)
class Layout:
    """What injection needs to know of one step Pod."""

    containers: tuple[ContainerRef, ...]
    """All of the Pod's, init containers first."""
    managed: tuple[ContainerRef, ...]
    """Those that Argo manages."""
    auxiliary: ContainerRef | None
    """`wait` or `supervisor`."""
    template: Mapping[str, Any] | None
    """None where Argo offloaded it (`offloaded`), and where there is none to be read."""
    offloaded: bool
    include_result: bool
    """Some other step uses this one's `outputs.result`."""
    deadline: str
    """When the auxiliary container ends the step (RFC 3339), "" for never."""
    token_mount: Mapping[str, Any] | None
    """A volumeMount of a container that Argo manages, as the other mounts are."""
    argo_mount: Mapping[str, Any] | None
    argo_bin_mount: Mapping[str, Any] | None
    config_mount: Mapping[str, Any] | None
    restarts: bool
    """A container that failed is started again."""

    @cached_property
    def recorded(self) -> tuple[ContainerRef, ...]:
        """The containers whose exit codes decide whether Argo takes the step for a success.

        All that Argo runs side by side: `inferFailedReason` in workflow/controller/operator.go looks at each.
        A main container may well fail after its exit code file says 0, while its outputs are packed.
        """
        return tuple(
            m
            for m in self.managed
            if m.kind == "containers" and not m.name.startswith(_PLUGIN_SIDECAR_PREFIX)
        )

    @property
    def template_inits(self) -> tuple[ContainerRef, ...]:
        """The init containers that the template declares: all but Argo's own and its artifact plugins'."""
        declared = _names_of((self.template or {}).get("initContainers"))
        return tuple(
            m
            for m in self.managed
            if m.kind == "initContainers"
            and m.name != names.INIT_CONTAINER
            and (m.name in declared or not m.name.startswith(_PLUGIN_INIT_PREFIX))
        )

    @property
    def argo_version(self) -> Version | None:
        """The version of the Argo that made the Pod, as far as its executor's image says one.

        None as well for a Pod without any container of the executor's (`data` in the init-less layout).
        """
        return version.executor_version(
            str(m.container.get("image", "")) for m in self.managed if m.name in _EXECUTORS
        )

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the containers that do the step's work: main containers, and sidecars of the template.

        Only the template tells the two apart.
        """
        return tuple(m.name for m in self.recorded if m.name not in _AUXILIARIES)


def read(pod: Mapping[str, Any]) -> Layout:
    """The layout of a Pod, whatever it is: what is not there is None or empty."""
    refs = tuple(_refs(pod.get("spec") or {}))
    source = _template_source(refs)
    text = str(source.variables[names.ENV_TEMPLATE]) if source is not None else None
    offloaded = text == names.TEMPLATE_OFFLOADED
    template = None if text is None or offloaded else _parse(text)
    declared_inits = _names_of((template or {}).get("initContainers"))
    managed = tuple(m for m in refs if _is_managed(m, declared_inits))
    auxiliary = next((m for m in managed if m.kind == "containers" and m.name in _AUXILIARIES), None)
    regular = [m for m in managed if m.kind == "containers"]
    # The executor may have a service account of its own (executor.serviceAccountName): its token is the one
    # that may write task results.
    by_authority = sorted(regular, key=lambda m: (m is not auxiliary, m.name != names.MAIN_CONTAINER))
    return Layout(
        containers=refs,
        managed=managed,
        auxiliary=auxiliary,
        template=template,
        offloaded=offloaded,
        include_result=any(m.variables.get(names.ENV_INCLUDE_SCRIPT_OUTPUT) == "true" for m in managed),
        deadline=_deadline(managed),
        token_mount=_first_mount(by_authority, names.SERVICEACCOUNT_DIR),
        argo_mount=_first_mount(by_authority, names.DIR),
        argo_bin_mount=_first_mount(regular, names.BIN_DIR),
        config_mount=source.mounts.get(names.CONFIG_DIR) if source is not None and offloaded else None,
        restarts=(pod.get("spec") or {}).get("restartPolicy") != "Never",
    )


def _refs(spec: Mapping[str, Any]) -> Iterator[ContainerRef]:
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            name = str(container.get("name", ""))
            yield ContainerRef(kind, index, name, container, _variables(container), _mounts(container))


def _variables(container: Mapping[str, Any]) -> dict[str, str]:
    """Of several entries for one name the last counts, as for the kubelet."""
    return {entry.get("name"): entry.get("value") or "" for entry in container.get("env") or ()}


def _mounts(container: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        posixpath.normpath(str(mount.get("mountPath", ""))): mount
        for mount in container.get("volumeMounts") or ()
    }


def _template_source(refs: tuple[ContainerRef, ...]) -> ContainerRef | None:
    """The container whose ARGO_TEMPLATE is Argo's own word.

    That is `init`, `supervisor`, or `main` where neither is there; before version.TEMPLATE_IN_ONE_CONTAINER
    every container has one. The template's own init containers have a copy in all versions, and come last.
    """
    carriers = [m for m in refs if names.ENV_TEMPLATE in m.variables]
    argos = (names.INIT_CONTAINER, names.SUPERVISOR_CONTAINER, names.MAIN_CONTAINER)
    return min(carriers, key=lambda m: m.name not in argos, default=None)


def _is_managed(ref: ContainerRef, declared_inits: frozenset[str]) -> bool:
    """Argo marks its containers with a variable; what a service mesh or another webhook adds has none."""
    if names.ENV_CONTAINER_NAME in ref.variables:
        return True
    return ref.kind == "initContainers" and (
        ref.name in declared_inits or ref.name.startswith(_PLUGIN_INIT_PREFIX)
    )


def _deadline(managed: tuple[ContainerRef, ...]) -> str:
    value = str(next((text for m in managed if (text := m.variables.get(names.ENV_DEADLINE))), ""))
    return "" if value.startswith(_NO_TIME) else value


def _first_mount(refs: list[ContainerRef], path: str) -> Mapping[str, Any] | None:
    return next((mount for m in refs if (mount := m.mounts.get(path)) is not None), None)


def _parse(text: str) -> Mapping[str, Any] | None:
    try:
        template = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return template if isinstance(template, dict) else None


def _names_of(containers: object) -> frozenset[str]:
    if not isinstance(containers, list):
        return frozenset()
    return frozenset(str(c.get("name", "")) for c in containers if isinstance(c, dict))
