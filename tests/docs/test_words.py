"""Words that have given way to another one do not come back in what users read."""

import re
from collections.abc import Iterator
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
