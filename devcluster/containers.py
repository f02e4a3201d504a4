"""From a container of a Pod to the plan that devcluster/sandbox.py runs.

With namespaces a container's mounts are mounts. Without them (`NO_NAMESPACE`) the containers of one Pod share
one directory tree: every mount is a symbolic link in it, and each absolute path that starts with one of the
Pod's mount points or with `/tmp` is rewritten to lie below that tree, in the command, in its arguments, in
variables and in the template that Argo's executor reads, scripts and output paths included. A step that
prints such a path prints the rewritten one; a path that it puts together at run time is not rewritten. Nor is
the host's /etc/hosts replaced: such a container does not find our cache service.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from argo import names as argo
from devcluster import sandbox
from devcluster.environment import UnsupportedPodError, environment, expand
from devcluster.images import Bind, Image
from memoize import names

ENV_ROOT = "DEVCLUSTER_ROOT"
"""Where the stand-in executor finds Argo's directories: "" with namespaces, else the Pod's tree."""

_HOSTS = Path("/etc/hosts")

_DIRECTORIES = {
    names.ENV_SHARED_DIR: names.SHARED_DIR,
    names.ENV_BIN_DIR: names.BIN_DIR,
    names.ENV_ARGO_DIR: argo.DIR,
    names.ENV_ARGO_CONFIG_DIR: argo.CONFIG_DIR,
    names.ENV_SERVICEACCOUNT_DIR: argo.SERVICEACCOUNT_DIR,
    names.ENV_TOKEN_DIR: names.TOKEN_DIR,
}


@dataclass(frozen=True, slots=True)
class PodPlace:
    """A Pod on this machine.

    `volumes` are prepared directories by name, `isolation` is one of devcluster.sandbox's three, `variables`
    are what every container starts from, `hosts` is their /etc/hosts where they have a file system of their
    own, `kubelet` is the process that the containers may not outlive.
    """

    directory: Path
    volumes: Mapping[str, Path]
    isolation: str
    variables: Mapping[str, str]
    hosts: Path
    kubelet: int


def check_supported(pod: Mapping[str, Any]) -> None:
    """UnsupportedPodError for what the devcluster would silently do otherwise than Kubernetes."""
    spec = pod["spec"]
    if spec.get("restartPolicy") != "Never":
        raise UnsupportedPodError("the devcluster runs Pods with restartPolicy Never alone")
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        name = container["name"]
        if container.get("restartPolicy", "Never") != "Never":
            raise UnsupportedPodError(f"container {name!r}: no native sidecars, and no restarts but by rules")
        if container.get("lifecycle"):
            raise UnsupportedPodError(f"container {name!r}: the devcluster has no lifecycle hooks")
        if not container.get("command"):
            raise UnsupportedPodError(f"container {name!r}: no command, and images here have no entrypoint")
        if container.get("envFrom"):
            raise UnsupportedPodError(f"container {name!r}: the devcluster has no envFrom")
        for entry in container.get("env") or []:
            if "fieldRef" not in entry.get("valueFrom", {"fieldRef": None}):
                raise UnsupportedPodError(f"variable {entry['name']!r}: the devcluster knows fieldRef alone")


def plan(
    container: Mapping[str, Any], pod: Mapping[str, Any], image: Image, place: PodPlace
) -> dict[str, Any]:
    """The sandbox's plan for one container: argv, env, cwd, mounts and the files it reports to.

    Makes the directories that it mentions. The Pod has passed check_supported.
    """
    mounts = [*image.binds, *_volume_mounts(container, pod, place), _termination_log(container, place)]
    base = {"PATH": image.path, "HOME": "/", "HOSTNAME": pod["metadata"]["name"], ENV_ROOT: ""}
    variables = environment(container, pod, base | dict(place.variables))
    command = [*container["command"], *(container.get("args") or [])]
    argv = [expand(word, variables) for word in command]
    cwd = container.get("workingDir") or image.working_dir
    root = place.directory / "roots" / container["name"]
    if place.isolation == sandbox.NO_NAMESPACE:
        root = place.directory / "root"
        _link(root, mounts)
        paths = Rewriter(root, pod)
        argv = [paths.text(word) for word in argv]
        cwd = str(root / cwd.lstrip("/"))
        variables = paths.variables(variables, mounts)
        variables[names.ENV_TERMINATION_LOG] = str(mounts[-1].source)
    elif _HOSTS.exists():
        mounts.append(Bind(place.hosts, str(_HOSTS)))
    root.mkdir(parents=True, exist_ok=True)
    return {
        "kubelet": place.kubelet,
        "isolation": place.isolation,
        "root": str(root),
        "readOnlyRoot": bool((container.get("securityContext") or {}).get("readOnlyRootFilesystem")),
        "mounts": [{"source": str(m.source), "target": m.target, "readOnly": m.read_only} for m in mounts],
        "argv": argv,
        "env": variables,
        "cwd": cwd,
        "pidFile": str(place.directory / f"{container['name']}.pid"),
    }


def termination_message(container: Mapping[str, Any], place: PodPlace) -> str:
    """What the container left in its termination log, at most the 4096 bytes that Kubernetes keeps."""
    return _termination_log(container, place).source.read_bytes()[:4096].decode(errors="replace")


class Rewriter:
    """Moves the Pod's absolute paths below `root`, for containers without a mount namespace."""

    def __init__(self, root: Path, pod: Mapping[str, Any]) -> None:
        self._root = root
        spec = pod["spec"]
        containers = [*(spec.get("initContainers") or []), *spec["containers"]]
        points = {mount["mountPath"] for each in containers for mount in each.get("volumeMounts") or []}
        points |= {"/tmp", str(PurePosixPath(names.IMAGE_ENTRYPOINT).parent)}
        alternatives = "|".join(re.escape(point) for point in sorted(points, key=len, reverse=True))
        self._path = re.compile(rf"(?<![\w./-])(?:{alternatives})(?![\w.-])")

    def text(self, text: str) -> str:
        """`text` with every such path moved."""
        return self._path.sub(lambda match: f"{self._root}{match[0]}", text)

    def variables(self, variables: Mapping[str, str], mounts: Iterable[Bind]) -> dict[str, str]:
        """A container's variables moved likewise, and those that tell programs where things are.

        What the webhook wrote (STEPMEMO_…) is not touched: a key may look like a path.
        """
        moved = {
            name: value if name.startswith("STEPMEMO_") else self._value(name, value)
            for name, value in variables.items()
        }
        directories = {name: f"{self._root}{path}" for name, path in _DIRECTORIES.items()}
        tools = {mount.target: str(mount.source) for mount in mounts}
        path = ":".join(tools.get(entry, entry) for entry in variables["PATH"].split(":"))
        return moved | directories | {ENV_ROOT: str(self._root), "TMPDIR": f"{self._root}/tmp", "PATH": path}

    def _value(self, name: str, value: str) -> str:
        if name == argo.ENV_TEMPLATE:
            return json.dumps(self._tree(json.loads(value)))
        return self.text(value)

    def _tree(self, value: Any) -> Any:
        """Every string below `value`; in JSON text a newline before a path would look like a letter."""
        if isinstance(value, dict):
            return {key: self._tree(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._tree(each) for each in value]
        return self.text(value) if isinstance(value, str) else value


def starts_again(container: Mapping[str, Any], code: int) -> bool:
    """Whether the container's restartPolicyRules want it started again after this exit code.

    The first rule that fits decides, and `Restart` is the one action of a container's own (KEP-5307). The
    kubelet would wait longer before each start after the second.
    """
    for rule in container.get("restartPolicyRules") or []:
        wanted = rule["exitCodes"]
        if (code in wanted["values"]) is (wanted["operator"] == "In"):
            return bool(rule["action"] == "Restart")
    return False


def _volume_mounts(container: Mapping[str, Any], pod: Mapping[str, Any], place: PodPlace) -> Iterable[Bind]:
    images = {volume["name"] for volume in pod["spec"].get("volumes") or [] if "image" in volume}
    for mount in container.get("volumeMounts") or []:
        source = place.volumes[mount["name"]]
        if sub_path := mount.get("subPath"):
            source = source / sub_path
            if not source.exists():
                source.mkdir(parents=True)
                source.chmod(0o777)
        read_only = bool(mount.get("readOnly")) or mount["name"] in images
        yield Bind(source, mount["mountPath"], read_only=read_only)


def _termination_log(container: Mapping[str, Any], place: PodPlace) -> Bind:
    source = place.directory / f"{container['name']}.termination"
    source.touch()
    return Bind(source, container.get("terminationMessagePath") or names.TERMINATION_LOG, read_only=False)


def _link(root: Path, mounts: Iterable[Bind]) -> None:
    """Show each mount at its place below `root`; the Pod's first container to mount a path decides it."""
    (root / "tmp").parent.mkdir(parents=True, exist_ok=True)
    for mount in sorted(mounts, key=lambda each: PurePosixPath(each.target).parts):
        link = root / mount.target.lstrip("/")
        if str(mount.source) == mount.target or link.is_symlink():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(mount.source)
    (root / "tmp").mkdir(exist_ok=True)
