"""The devcluster's images: what a container's root shows besides the host's own programs.

There is no registry. Three images exist: stepmemo's (this checkout's packages and the entrypoint, laid out as
the Containerfile lays them out), Argo's executor (our stand-in, devcluster/argoexec.py), and every other
name, which is simply the host: its /bin/sh and its tools. The first can be a volume too, which then holds the
entrypoint.
"""

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from devcluster.environment import UnsupportedPodError
from memoize import names

EXECUTOR_IMAGE = "argoexec"
STEPMEMO_IMAGE = "stepmemo"

_CHECKOUT = Path(__file__).resolve().parent.parent
_TOOLS = "/opt/devcluster/bin"
"""Where our images keep `python3` and `argoexec`."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = ("argo", "memoize", "sidecar")
"""What the sidecar imports."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A host path and where a container sees it."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Image:
    """What an image adds to the host's file system, its working directory and its PATH."""

    binds: tuple[Bind, ...]
    working_dir: str = "/"
    path: str = _PATH


class Images:
    """The three images, their files prepared in `directory`; `entrypoint` is the built static binary."""

    def __init__(self, directory: Path, entrypoint: Path) -> None:
        self._entrypoint = entrypoint
        self._tools = directory / "tools"
        self._volume = directory / "volume"
        _install_tools(self._tools)
        in_volume = Path(f"{self._volume}{names.IMAGE_ENTRYPOINT}")
        in_volume.parent.mkdir(parents=True)
        shutil.copy(entrypoint, in_volume)

    def of(self, name: str) -> Image:
        """The image a container names; registry, tag and digest do not matter."""
        python = _python_binds()
        tools = Bind(self._tools, _TOOLS)
        repository = _repository(name)
        if repository == STEPMEMO_IMAGE:
            home = str(Path(names.IMAGE_ENTRYPOINT).parent)
            packages = tuple(Bind(_CHECKOUT / package, f"{home}/{package}") for package in _PACKAGES)
            entrypoint = Bind(self._entrypoint, names.IMAGE_ENTRYPOINT)
            return Image((*python, tools, entrypoint, *packages), home, f"{_TOOLS}:{_PATH}")
        if repository == EXECUTOR_IMAGE:
            return Image((*python, tools), path=f"{_TOOLS}:{_PATH}")
        return Image(python)

    def as_volume(self, name: str) -> Path:
        """The directory that an image volume shows: one for all Pods, read-only in each.

        UnsupportedPodError for any image but stepmemo's.
        """
        if _repository(name) != STEPMEMO_IMAGE:
            raise UnsupportedPodError(f"image {name!r}: the devcluster has it not as a volume")
        return self._volume


def _repository(name: str) -> str:
    return name.rpartition("/")[2].partition("@")[0].partition(":")[0]


def interpreter() -> Path:
    """The Python that runs this, without a virtual environment around it."""
    return Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}").resolve()


def _python_binds() -> tuple[Bind, ...]:
    """Python's own files, where they do not lie in the parts of the host that every container sees."""
    prefixes = {Path(sys.base_prefix).resolve(), Path(sys.base_exec_prefix).resolve()}
    return tuple(Bind(prefix, str(prefix)) for prefix in sorted(prefixes) if prefix.parts[1] != "usr")


def _install_tools(directory: Path) -> None:
    """`python3`, and `argoexec` as a program that can be copied elsewhere together with its script."""
    directory.mkdir(parents=True)
    (directory / "python3").symlink_to(interpreter())
    shutil.copy(_CHECKOUT / "devcluster" / "argoexec.py", directory / "argoexec.py")
    launcher = directory / "argoexec"
    launcher.write_text(
        f'#!/bin/sh\nexec {shlex.quote(str(interpreter()))} -S -E -B "$0.py" "$@"\n', encoding="utf-8"
    )
    launcher.chmod(0o755)
