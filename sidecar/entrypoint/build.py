"""Builds the entrypoint for both architectures with the C compiler in the `ziglang` wheel.

`python -m sidecar.entrypoint.build [ARCHITECTURE…]` builds what is out of date and prints the paths.
The same sources give the same bytes on every machine; a second call with nothing changed does nothing.
"""

import fcntl
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from memoize import __version__

ARCHITECTURES = ("x86_64", "aarch64")
"""As `uname -m` and Zig spell them; Kubernetes and OCI images say amd64 and arm64."""

SOURCES = Path(__file__).parent
OUTPUT = SOURCES.parents[1] / "build" / "entrypoint"

WARNINGS = (
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Werror",
)
FLAGS = (
    *("-std=c17", "-D_GNU_SOURCE", "-Os", *WARNINGS),
    *("-ffunction-sections", "-fdata-sections", "-fno-asynchronous-unwind-tables", "-fno-ident"),
    *("-static", "-s", "-Wl,--gc-sections", "-Wl,--build-id=none"),
    f'-DVERSION="{__version__}"',
)


def path(architecture: str) -> Path:
    """Where the binary for `architecture` lies once it is built."""
    return OUTPUT / f"entrypoint-{architecture}"


def build(architecture: str) -> Path:
    """Builds the binary unless it is up to date, and returns its path.

    Several processes may call this at once: one builds, the others wait for it. Raises RuntimeError with
    the compiler's words when it refuses.
    """
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with (OUTPUT / f".lock-{architecture}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, wanted = OUTPUT / f".built-{architecture}", _digest()
        if not (path(architecture).exists() and stamp.exists() and stamp.read_text() == wanted):
            stamp.unlink(missing_ok=True)
            _compile(architecture)
            stamp.write_text(wanted)
    return path(architecture)


def path_for_host() -> Path:
    """The binary that runs on this machine, built when needed. Raises RuntimeError where none does."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    if sys.platform != "linux" or machine not in ARCHITECTURES:
        raise RuntimeError(
            f"the entrypoint runs on Linux x86_64 and aarch64, not on {sys.platform} {machine}"
        )
    return build(machine)


def _digest() -> str:
    """Everything that the binaries depend on."""
    digest = hashlib.sha256(" ".join((version("ziglang"), *FLAGS)).encode())
    for source in sorted(SOURCES.glob("*.[ch]")):
        digest.update(f"\0{source.name}\0".encode() + source.read_bytes())
    return digest.hexdigest()


def _compile(architecture: str) -> None:
    sources = sorted(source.name for source in SOURCES.glob("*.c"))
    with tempfile.TemporaryDirectory(dir=OUTPUT) as aside:
        binary = Path(aside) / "entrypoint"
        compiler = (sys.executable, "-m", "ziglang", "cc", "-target", f"{architecture}-linux-musl")
        done = subprocess.run(
            [*compiler, *FLAGS, "-o", str(binary), *sources],
            cwd=SOURCES,
            # Zig keeps what it compiled in the working directory unless told otherwise.
            env={**os.environ, "ZIG_LOCAL_CACHE_DIR": aside},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"cannot build the entrypoint for {architecture}:\n{done.stderr}")
        binary.chmod(0o755)
        binary.replace(path(architecture))


def main() -> None:
    """Builds for the architectures named on the command line, or for all, and prints their paths."""
    for architecture in sys.argv[1:] or ARCHITECTURES:
        print(build(architecture))


if __name__ == "__main__":
    main()
