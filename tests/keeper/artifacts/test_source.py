import ast
import asyncio
import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from keeper.artifacts.repositories import Repository
from keeper.artifacts.source import MOST_FILE_BYTES, Source
from keeper.artifacts.verifier import Probe
from tests.beside import beside
from tests.waiting import until

KEEPER = Path(__file__).parents[3] / "keeper"
S3 = {"endpoint": "minio:9000", "bucket": "b", "accessKeyFile": "access", "secretKeyFile": "secret"}


class Site:
    """A directory that a Secret is mounted to, and what was made of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.used: list[list[str]] = []
        self.source = Source(directory / "repositories.yaml", self._use)

    def _use(self, probes: Mapping[Repository, Probe]) -> None:
        self.used.append([one.name for one in probes])

    def mount(self, version: str, *names: str, **files: str) -> None:
        """Change all files at once, as the kubelet does it."""
        (self.directory / version).mkdir()
        repositories = [{"name": name, "s3": {**S3, "bucket": name}} for name in names]
        files = {"repositories.yaml": json.dumps({"repositories": repositories}), **files}
        for name, text in files.items():
            (self.directory / version / name).write_text(text)
            link = self.directory / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        (self.directory / "..new").symlink_to(version)
        (self.directory / "..new").replace(self.directory / "..data")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_what_the_files_hold_is_used_and_used_anew_when_any_of_them_changes(site: Site) -> None:
    site.mount("..1", "main", access="a", secret="b")
    for _ in range(2):
        site.source.reload()
    assert site.used == [["main"]]
    site.mount("..2", "main", access="a", secret="c")
    site.source.reload()
    assert site.used == [["main"]] * 2
    site.mount("..3", "main", "other", access="a", secret="c")
    site.source.reload()
    assert site.used[2:] == [["main", "other"]]
    assert site.source.notice == ""


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"secret": "b"}, "cannot read access: No such file or directory"),
        ({"repositories.yaml": "{"}, "it is no YAML"),
        ({"repositories.yaml": "repositories: [{name: a}]"}, "repositories[0].s3: exactly one of"),
        ({"repositories.yaml": f"# {'x' * (1 << 20)}"}, "repositories.yaml has more than 1048576 bytes"),
        (
            {"repositories.yaml": 'repositories: [{name: a, http: {url: "http://a", caFile: "\\0"}}]'},
            "cannot read '\\x00': no file can have this name",
        ),
        ({"access": "\xff" * (MOST_FILE_BYTES + 1), "secret": "b"}, "access has more than 65536 bytes"),
    ],
)
def test_what_cannot_be_used_is_said_once_and_the_last_good_ones_stay(
    site: Site, files: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.mount("..1", "main", access="a", secret="b")
    site.source.reload()
    (site.directory / "access").unlink()
    site.mount("..2", "main", **files)
    caplog.clear()
    for _ in range(2):
        site.source.reload()
    assert site.used == [["main"]]
    (line,) = (one for one in caplog.records if one.levelno == logging.WARNING)
    assert said in line.getMessage() == site.source.notice
    site.mount("..3", "other", access="a", secret="b")
    site.source.reload()
    assert (site.used[-1], site.source.notice) == (["other"], "")


def test_files_that_have_not_changed_are_not_made_anything_of_again(site: Site) -> None:
    site.mount("..1", "main", access="a", secret="b")
    assert site.source._look() is site.source._look()


async def test_files_are_read_beside_the_event_loop(site: Site) -> None:
    os.mkfifo(file := site.directory / "repositories.yaml")
    goes_on = threading.Event()

    def write() -> bool:
        """Let the file be read, soon or late; whether the loop went on meanwhile."""
        went_on = goes_on.wait(60)
        file.write_text("{}")
        return went_on

    written = asyncio.create_task(asyncio.to_thread(write))
    await asyncio.sleep(0)
    async with beside(site.source.run()):
        await asyncio.sleep(0)
        goes_on.set()
        assert await written
        await until(lambda: site.used == [[]])
        file.unlink()


@pytest.mark.parametrize("content", ["\u00fc", "-----BEGIN CERTIFICATE-----"])
def test_a_ca_that_is_none_is_said(site: Site, content: str) -> None:
    one = {"name": "main", "http": {"url": "https://files.example", "caFile": "ca"}}
    site.mount("..1", ca=content, **{"repositories.yaml": json.dumps({"repositories": [one]})})
    site.source.reload()
    assert "repository main: " in site.source.notice


def test_without_a_file_nothing_is_used_and_that_is_said(site: Site) -> None:
    site.source.reload()
    assert site.used == []
    assert "cannot read repositories.yaml" in site.source.notice


def test_a_file_may_be_elsewhere(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret"
    elsewhere.write_text("b")
    one: dict[str, Any] = {"name": "main", "s3": {**S3, "secretKeyFile": os.fspath(elsewhere)}}
    site.mount("..1", access="a", **{"repositories.yaml": json.dumps({"repositories": [one]})})
    site.source.reload()
    assert site.used == [["main"]]


@pytest.mark.slow
def test_a_keeper_without_the_flag_loads_nothing_of_the_library() -> None:
    """Only what is imported inside of a function, where the flag is given, leads there."""

    def imported(file: Path) -> set[str]:
        found = set[str]()
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found |= {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {str(node.module), *(f"{node.module}.{one.name}" for one in node.names)}
        return found

    def importers(module: str) -> set[str]:
        return {file.name for file in KEEPER.rglob("*.py") if module in imported(file)}

    assert importers("obstore") == {"probes.py"}
    assert importers("keeper.artifacts.probes") == {"source.py"}
    assert importers("keeper.artifacts.source") == set()
