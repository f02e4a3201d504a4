"""Words that have given way to another one do not come back in what users read, nor in identifiers."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import keeper.settings
import webhook.settings
from tests.exposed import everything

ROOT = Path(__file__).parents[2]
RETIRED = re.compile(r"\b(held|look-ups?)\b", re.IGNORECASE)
"""Pods are gated; what is made of a key is a lookup."""


def texts() -> Iterator[tuple[str, str]]:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "manifests").rglob("*.yaml")]:
        yield str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
    yield "metrics", re.sub("^[^#].*\n", "", everything().render().decode(), flags=re.MULTILINE)
    for program in (webhook.settings, keeper.settings):
        yield program.__name__, "\n".join(one.help for one in program.DECLARED.values())


@pytest.mark.parametrize("text", [pytest.param(text, id=where) for where, text in texts()])
def test_no_word_that_has_given_way_to_another_is_read_by_users(text: str) -> None:
    assert [line for line in text.splitlines() if RETIRED.search(line)] == []


# --- Identifiers --------------------------------------------------------------------------------------

PRODUCT = ("argo", "memoize", "kube", "server", "webhook", "keeper", "sidecar", "certs", "cli")
"""What is installed; devcluster, bench and tests have words of their own."""
ONE_OF_EACH_PROGRAM = frozenset({"Settings", "SettingsError"})
"""Each program has its own settings, and nobody sees two of them. The sidecar imports nothing of `server`, so
it has its own error too."""
NO_IDENTIFIER = re.compile(
    "beat|crowded|doubtful|fitness|gateable|heard|hopeless|hurry|judge|obstacle|patience|silence|stray|stuck|"
    "symptoms|takeover|tend|tended|unfinished|unfit|unsuited",
    re.IGNORECASE,
)
"""They have given way to plainer words, or to Kubernetes': `full`, `last_contact`, `reconcile`, a timeout."""
WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""Of an identifier, however these are written."""


@cache
def parsed() -> Mapping[str, ast.Module]:
    files = [file for room in PRODUCT for file in (ROOT / room).rglob("*.py")]
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def declared(node: ast.AST) -> str | None:
    """The name that a class, function, argument, attribute, field or constant gets here."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return name
        case ast.arg(arg=name):
            return name
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return name
    return None


def test_no_public_class_name_stands_for_two_things() -> None:
    modules = defaultdict[str, list[str]](list)
    for file, module in parsed().items():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(f"{file}:{node.lineno}")
    twice = {name: where for name, where in modules.items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in ONE_OF_EACH_PROGRAM} == {}
    assert twice.keys() == ONE_OF_EACH_PROGRAM, "an exception that is none any more"


def test_no_identifier_has_a_word_that_has_given_way_to_another() -> None:
    assert [
        f"{file}:{getattr(node, 'lineno', 0)}: {name}"
        for file, module in parsed().items()
        for node in ast.walk(module)
        if (name := declared(node)) and any(map(NO_IDENTIFIER.fullmatch, WORD.findall(name)))
    ] == []
