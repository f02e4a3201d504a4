import struct
import subprocess
import sys
from pathlib import Path

import pytest

from memoize import __version__
from sidecar.entrypoint import build

MACHINES = {"x86_64": 62, "aarch64": 183}
PT_INTERP, PT_DYNAMIC = 3, 2


def program_headers(elf: bytes) -> set[int]:
    offset, size, count = (
        struct.unpack_from("<Q", elf, 32)[0],
        *struct.unpack_from("<HH", elf, 54),
    )
    return {struct.unpack_from("<I", elf, offset + index * size)[0] for index in range(count)}


@pytest.mark.parametrize("architecture", build.ARCHITECTURES)
def test_each_binary_is_a_small_static_executable_of_its_architecture(architecture: str) -> None:
    elf = build.build(architecture).read_bytes()
    assert elf[:6] == b"\x7fELF\x02\x01"
    assert struct.unpack_from("<H", elf, 18)[0] == MACHINES[architecture]
    assert not program_headers(elf) & {PT_INTERP, PT_DYNAMIC}
    assert len(elf) < 64 * 1024
    assert str(Path.cwd()).encode() not in elf


def test_the_binary_says_its_version() -> None:
    said = subprocess.run([build.path_for_host(), "--version"], capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == (f"stepmemo {__version__}\n", "")


def test_a_second_build_does_nothing() -> None:
    binary = build.path_for_host()
    before = binary.stat().st_mtime_ns
    assert build.path_for_host() == binary
    assert binary.stat().st_mtime_ns == before


def test_the_same_sources_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.path_for_host()
    monkeypatch.setattr(build, "OUTPUT", tmp_path)
    assert build.path_for_host().read_bytes() == first.read_bytes()


def test_the_command_line_builds_what_it_is_told_and_says_where() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar.entrypoint.build", "x86_64"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(build.path("x86_64"))]


def test_another_machine_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.platform, "machine", lambda: "riscv64")
    with pytest.raises(RuntimeError, match="riscv64"):
        build.path_for_host()
