"""What the pages name is there: files, headings, flags and variables."""

import argparse
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import keeper.settings
import webhook.settings
from cli.__main__ import make_parser
from memoize import names

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
PATH = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|h|c|md|yaml|json)|\.?[\w-]+(?:/[\w-]+)*/)`")
"""A file or, with a slash at its end, a directory; one without a directory may lie anywhere."""
VARIABLE = re.compile(r"\bSTEPMEMO_[A-Z0-9_]+\b")
OTHERS_FLAGS = {
    "--burst",
    "--create-namespace",
    "--for",
    "--force",
    "--group",
    "--ignore-not-found",
    "--install",
    "--memoized",
    "--no-hooks",
    "--qps",
    "--replicas",
    "--resource",
    "--resource-name",
    "--role",
    "--serviceaccount",
    "--set-string",
    "--tail",
    "--timeout",
    "--verb",
}
"""Of kubectl, helm and argo."""
TOOLS = (ROOT / "Makefile", ROOT / "tools", ROOT / "tests", ROOT / "bench", ROOT / ".ci")
"""Who reads variables beside the server and the sidecar."""


@pytest.fixture
def server_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the programs of the server say of their settings, each in one line."""
    monkeypatch.setenv("COLUMNS", "1000")
    for program in (keeper.settings, webhook.settings):
        with pytest.raises(SystemExit):
            program.parse(["--help"], {})
    return capsys.readouterr().out


def ids(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings get on GitHub."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def flags_of_the_command() -> Iterator[str]:
    (subparsers,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for parser in subparsers.choices.values():
        for action in parser._actions:
            yield from action.option_strings


@cache
def variables_of_the_tools() -> set[str]:
    files = [file for tool in TOOLS for file in ([tool] if tool.is_file() else tool.rglob("*"))]
    return {
        name
        for file in files
        if file.is_file() and file != Path(__file__) and file.suffix in ("", ".py")
        for name in VARIABLE.findall(file.read_text(encoding="utf-8"))
    }


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_relative_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    for link in links:
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


@cache
def names_in_the_checkout() -> set[str]:
    """Of files and directories, looked at once; not where tools and other tests make some and remove them."""
    found = set()
    for _, directories, files in os.walk(ROOT):
        directories[:] = [name for name in directories if not name.startswith((".", "__", "build"))]
        found |= {*directories, *files}
    return found


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_file_that_is_named_is_there(page: Path) -> None:
    for path in PATH.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists() or path.rstrip("/") in names_in_the_checkout(), path


def test_every_page_is_reached_from_the_readme() -> None:
    linked = {(README.parent / link).resolve() for link in LINK.findall(README.read_text(encoding="utf-8"))}
    assert set(PAGES) - {README} <= linked


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_flag_that_is_named_is_one(page: Path, server_help: str) -> None:
    ours = {*FLAG.findall(server_help), *flags_of_the_command()}
    assert set(FLAG.findall(page.read_text(encoding="utf-8"))) <= ours | OTHERS_FLAGS


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_variable_that_is_named_is_read_by_somebody(page: Path, server_help: str) -> None:
    containers = {value for name, value in vars(names).items() if name.startswith("ENV_")}
    ours = {*VARIABLE.findall(server_help), *containers, *variables_of_the_tools()}
    assert set(VARIABLE.findall(page.read_text(encoding="utf-8"))) <= ours
