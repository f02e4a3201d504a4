"""Renders docs/compatibility.json, which the end-to-end runs write, as docs/compatibility.md.

    python -m tests.e2e.table

Pure but for `main`. A case is a row; its variants (parametrized) are counted in one cell.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
SOURCE, PAGE = DOCS / "compatibility.json", DOCS / "compatibility.md"

SKIPPED = "skipped: "
_NAMED = 20
"""More variants than this are counted, so that a row stays readable."""

HEAD = """\
# Compatibility

What was run where. This page is made of [compatibility.json](compatibility.json), which the end-to-end suite
([tests/e2e](../tests/e2e/README.md)) writes when it runs; it is not edited by hand.

Every case runs real workflows: a step that is executed prints a line and gives a random output; a hit is
a run with the same output and no such line. A column is a version of Argo Workflows, the layout of its Pods
(`legacy`: with Argo's init container, `init-less`: without) and where the lookup is made (`service`:
outside the Pod, which a hit never starts; in the Pod, by an entrypoint that an init container, `init`, or
an `image-volume` brings).

| cell | meaning |
|---|---|
| ✓ | passed |
| ✗ | failed; the variants that did, where there are several |
| – | skipped, with the reason under the tables |
| | not run |
"""


@dataclass
class Notes:
    """The reasons for skips, numbered as they are met."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.texts.index(text) + 1}]"


def render(table: dict[str, Any]) -> str:
    """The page."""
    columns = sorted(table["columns"], key=newest_first)
    notes = Notes()
    parts = [HEAD, "\n".join(runs(table["columns"], columns))]
    for group, cases in groupby(sorted(table["cases"]), key=lambda case: case.partition("::")[0]):
        found = [table["cases"][case] for case in cases]
        parts.append("\n".join(_group(_title(group), found, columns, notes)))
    if notes.texts:
        listed = (f"{number}. {text}" for number, text in enumerate(notes.texts, start=1))
        parts.append("\n".join(["## Skipped because", "", *listed]))
    return "\n".join(f"{part.strip()}\n" for part in parts)


def newest_first(column: str) -> tuple[tuple[int, ...], str]:
    version, _, rest = column.partition(" · ")
    return tuple(-int(part) for part in version.split(".")), rest


def _title(file: str) -> str:
    words = file.removeprefix("test_").removesuffix(".py").replace("_", " ")
    return words.capitalize()


def runs(known: dict[str, Any], columns: list[str]) -> Iterator[str]:
    yield "| Argo · layout · lookup | Kubernetes | date |"
    yield "|---|---|---|"
    for column in columns:
        yield f"| {column} | {known[column]['kubernetes']} | {known[column]['date']} |"


def _group(title: str, cases: list[dict[str, Any]], columns: list[str], notes: Notes) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield f"| | {' | '.join(column.replace(' · ', '<br>') for column in columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for case in sorted(cases, key=lambda case: case["says"]):
        outcomes = case["outcomes"]
        variants = sorted({variant for column in outcomes.values() for variant in column if variant})
        named = ", ".join(variants) if len(variants) <= _NAMED else f"{len(variants)} variants"
        says = f"{case['says']}: {named}" if variants else case["says"]
        cells = (_cell(outcomes.get(column, {}), notes) for column in columns)
        yield f"| {says.replace('|', '&#124;')} | {' | '.join(cells)} |"


def _cell(outcomes: dict[str, str], notes: Notes) -> str:
    """One case in one column: all of its variants."""
    failed = sorted(variant for variant, outcome in outcomes.items() if outcome == "failed")
    reasons = sorted({o.removeprefix(SKIPPED) for o in outcomes.values() if o.startswith(SKIPPED)})
    skipped = f"– {' '.join(map(notes.mark, reasons))}" if reasons else ""
    if failed:
        return f"✗ {', '.join(failed)}".strip()
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    if passed and reasons:
        return f"✓ {passed} of {len(outcomes)}, {skipped}"
    return "✓" if passed else skipped


def main() -> None:
    PAGE.write_text(render(json.loads(SOURCE.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
