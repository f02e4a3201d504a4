"""Programs that tests need, built from their Go modules: once, into a cache, with nothing else but Go.

The binaries lie in ${STEPMEMO_CACHE:-~/.cache/stepmemo}, by version.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CACHE = Path(os.environ.get("STEPMEMO_CACHE") or Path.home() / ".cache" / "stepmemo")


def prepare() -> None:
    """Make the cache; exits where there is no Go to fill it with."""
    if shutil.which("go") is None:
        sys.exit(f"{Path(sys.argv[0]).name}: building needs Go (https://go.dev/dl)")
    CACHE.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def go_module(requirements: dict[str, str]) -> Iterator[Path]:
    """A throw-away Go module that requires these modules."""
    with tempfile.TemporaryDirectory(prefix="stepmemo-build-") as directory:
        module = Path(directory)
        go(module, "mod", "init", "stepmemo.dev/build")
        for path, version in requirements.items():
            go(module, "mod", "edit", f"-require={path}@{version}")
        yield module


def go_build(
    module: Path, package: str, binary: Path, *, linker_flags: str = "-s -w", tags: str = ""
) -> None:
    """Build a package into a file, which appears whole or not at all."""
    says = Path(sys.argv[0]).name
    print(f"{says}: building {binary.name}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=binary.parent) as aside:
        output = Path(aside) / binary.name
        go(module, "build", "-trimpath", "-tags", tags, "-ldflags", linker_flags, "-o", str(output), package)
        output.rename(binary)
    print(f"{says}: {binary} after {time.monotonic() - started:.0f} s", flush=True)


def go(module: Path, *arguments: str) -> str:
    """Run the go command in a module; its standard output. Exits with its words where it fails."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off"}
    done = subprocess.run(
        ["go", *arguments], cwd=module, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{Path(sys.argv[0]).name}: go {' '.join(arguments)}\n{done.stderr}")
    return done.stdout


class Program(NamedTuple):
    """A program that one Go package is."""

    name: str
    module: str
    version: str
    """Of the module, without its `v`."""
    package: str
    """Within the module."""
    tags: str = ""

    @property
    def binary(self) -> Path:
        """Where it is, or will be."""
        return Path(os.environ.get(f"STEPMEMO_{self.name.upper()}") or CACHE / f"{self.name}-{self.version}")

    def build(self) -> None:
        """Build it if it is not there. The Go module proxy is the only thing that is downloaded from."""
        if not self.binary.is_file():
            prepare()
            with go_module({self.module: f"v{self.version}"}) as module:
                go_build(module, f"{self.module}/{self.package}", self.binary, tags=self.tags)


def main(program: Program, description: str) -> int:
    """The command line of such a program's tool: build, built, run. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build")
    commands.add_parser("built")
    commands.add_parser("run")  # argparse would take options of the program's for its own
    if sys.argv[1:2] == ["run"]:
        os.execv(program.binary, [str(program.binary), *sys.argv[2:]])
    arguments = parser.parse_args()
    if arguments.command == "build":
        program.build()
    return 0 if program.binary.is_file() else 1
