"""What the image is made of: locked dependencies, and our packages. `make lock` writes the lock files."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONTAINERFILE = (ROOT / "Containerfile").read_text()
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def locked(name: str) -> dict[str, Requirement]:
    """The requirements of a lock file by name; each is followed by its hashes."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = [Requirement(line.partition("\\")[0]) for line in lines if not line.startswith((" ", "#"))]
    return {canonicalize_name(one.name): one for one in found}


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("programs.txt", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["verify"]),
        (
            "entrypoint.txt",
            [one for one in PROJECT["optional-dependencies"]["dev"] if one.startswith("ziglang")],
        ),
    ],
)
def test_a_lock_holds_what_the_project_asks_for_in_a_version_that_it_allows(
    lock: str, wanted: list[str]
) -> None:
    assert wanted
    found = locked(lock)
    for one in map(Requirement, wanted):
        pinned = found[canonicalize_name(one.name)]
        (pin,) = pinned.specifier
        assert (pin.operator, pinned.marker) == ("==", None), one
        assert one.specifier.contains(pin.version), f"make lock: {pinned} is not {one}"
        assert one.extras <= pinned.extras, one


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_package_is_pinned_and_has_hashes_and_no_place_to_be_fetched_from(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    for entry in re.split(r"\n(?=\S)", text.rstrip("\n")):
        pinned, *hashes = entry.replace("\\\n", " ").split("--hash=")
        assert "==" in pinned, pinned
        assert hashes, pinned
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", one) for one in hashes), pinned


def test_only_locked_packages_are_installed_and_only_by_their_hashes() -> None:
    assert "PIP_REQUIRE_HASHES=1" in CONTAINERFILE
    installed = re.findall(r"pip install .*? -r requirements/(\S+)", CONTAINERFILE)
    assert sorted(installed) == [lock.name for lock in LOCKS]
    assert CONTAINERFILE.count("pip install") == len(LOCKS)


def test_what_is_copied_is_all_that_a_build_is_sent() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+) ", CONTAINERFILE, re.M)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert sorted(copied) == sorted(line[1:] for line in ignored if line.startswith("!"))
    assert all((ROOT / path).exists() for path in copied)
