"""Renders docs/argo-own-memoization.json, which test_beside_argo.py records, as the page beside it.

    python -m tests.e2e.hits_table

The file, by example:

    {"columns": {"4.1.2 · legacy · service": {"date": "2026-01-31", "kubernetes": "1.35.4"}},
     "rows": {"what hits": {"4.1.2 · legacy · service": {
         "argo": {"first": {"faults": [], "hits": "0 of 1"},
                  "again": {"faults": [["hangs", "what was seen"]], "hits": "1 of 1"}},
         "stepmemo": {"first": …, "again": …}}}}}

Pure but for `main`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from memoize import names
from tests.e2e.compare import NOTHING
from tests.e2e.hits import KINDS, ROWS, Kind
from tests.e2e.judge import KINDS as FAULTS
from tests.e2e.judge import Fault
from tests.e2e.probe import Setting
from tests.e2e.table import DOCS, newest_first, runs
from tests.e2e.ways import ARGO, STEPMEMO

SOURCE, PAGE = DOCS / "argo-own-memoization.json", DOCS / "argo-own-memoization.md"
FIRST, AGAIN = "first", "again"
"""The run that stores, and the same workflow again."""

HEAD = """\
# Argo's own memoization, and stepmemo

Argo's controller memoizes by itself what has a `memoize` block. This page says for which steps its hits break
the workflow that takes them, what stepmemo does there, and which steps to leave to Argo. It is made of
[argo-own-memoization.json](argo-own-memoization.json), which the end-to-end suite
([tests/e2e](../tests/e2e/README.md)) records; it is not edited by hand.

Each row is one workflow, run on a real cluster without memoization once, and with each kind of memoization
twice: the second run finds an entry for every memoized step. A run is right if it ends as the one without
memoization did, with the same steps and hooks, if every step and hook was given the same values, and if the
workflow's outputs and metrics are there. A workflow hangs if it is running half a minute after anything of it
changed and all of its Pods are over, and a workflow that was created then has ended.
"""
LEAVE = f"""\
## Which steps to leave to Argo

A hit of stepmemo's is a Pod that is over, and the controller looks at it one requeue time later
(`DEFAULT_REQUEUE_TIME`, 10 s by default); [what that comes to](../README.md#limits-that-surprise). From Argo
4.0 on nothing outside of the controller makes it look sooner. Argo's own hit is made in the controller's own
look, and the next step in the same one. So leave a template to Argo where all of this holds:

- it runs for no longer than a few requeue times, and many such steps come one after the other;
- nothing that it has, and nothing that its call has, is a row above without a ✓ for Argo's own;
- its outputs are small: entries share a ConfigMap, and one that does not fit into it fails its step;
- its key is of letters, digits and `-`;
- the controller may get, create and update ConfigMaps in its own namespace.

Write `"false"` beside the block, on the template:

```yaml
    - name: cheap
      metadata:
        annotations: {{{names.MEMOIZE}: "false"}}
      memoize: {{key: "of-{{{{inputs.parameters.x}}}}", maxAge: 24h, cache: {{configMap: {{name: cheap}}}}}}
```

On a Workflow or WorkflowTemplate the same annotation leaves all of its templates to Argo, but for those that
say `"true"` ([who wins](annotations.md#what-you-write)). The block stays where it is and is checked at
submit, with a warning where it stands beside a `retryStrategy`. Everything else is Argo's then: entries lie
in the controller's namespace, one ConfigMap of that name for all namespaces; equal steps that start together
all run; the [modes](annotations.md#what-you-write) of a run do nothing; each hit takes two of the
controller's requests to the API server, each step that runs four, out of 20 a second for everybody's
workflows. `stepmemo import` copies such entries [to where stepmemo finds them](cli.md#import).
"""

Json = dict[str, Any]


class Outcome(NamedTuple):
    """Of one run: what was wrong, and how many memoized nodes were hits (`2 of 3`, or "")."""

    faults: list[Fault]
    hits: str


def merge(table: Json, setting: Setting, date: str, outcomes: Mapping[str, Mapping[str, Json]]) -> Json:
    """The table with these rows' outcomes in the setting's column; what did not run stays as it was."""
    columns = table.get("columns", {}) | {setting.column: {"date": date, "kubernetes": setting.kubernetes}}
    rows = {says: columns for says, columns in table.get("rows", {}).items() if says in ROWS}
    for says, found in outcomes.items():
        rows[says] = rows.get(says, {}) | {setting.column: found}
    return {"columns": columns, "rows": rows}


def told(ways: Mapping[str, Mapping[str, Outcome]]) -> Json:
    """What a row keeps of its runs, by way and by FIRST and AGAIN."""
    return {
        way: {
            which: {"faults": [list(fault) for fault in outcome.faults], "hits": outcome.hits}
            for which, outcome in both.items()
        }
        for way, both in ways.items()
    }


def render(table: Json) -> str:
    """The page."""
    columns = sorted(table["columns"], key=newest_first)
    rows = table["rows"]
    broken = {says for says in ROWS if any(_faults(rows, says, column, ARGO) for column in columns)}
    parts = [HEAD, "\n".join(runs(table["columns"], columns)), "\n".join(_broken(rows, broken, columns))]
    parts += ["## Where both are right"]
    for group, kinds in KINDS.items():
        sound = {says: kind for says, kind in kinds.items() if says in rows and says not in broken}
        if sound:
            parts.append("\n".join(_group(group, sound, rows, columns)))
    return "\n".join(f"{part.strip()}\n" for part in [*parts, LEAVE])


def _versions(columns: list[str]) -> list[str]:
    return [column.partition(" ")[0] for column in columns]


def _heading(first: str, columns: list[str], *more: str) -> Iterator[str]:
    said = [f"{who}<br>{v}" for who in ("Argo's own", "stepmemo") for v in _versions(columns)]
    heads = [first, *said, *more]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"


def _row(says: str, kind: Kind, rows: Json, columns: list[str], *more: str) -> str:
    cells = [
        _cell(rows.get(says, {}).get(column, {}), way, kind) for way in (ARGO, STEPMEMO) for column in columns
    ]
    return f"| {' | '.join([says, *cells, *more])} |"


def _broken(rows: Json, broken: set[str], columns: list[str]) -> Iterator[str]:
    yield "## What breaks"
    yield ""
    yield "✓: both runs are right. *runs again*: nothing was served from a cache."
    yield ""
    yield from _heading("a hit on", columns, "why Argo's own breaks")
    for says, kind in ROWS.items():
        if says in broken:
            yield _row(says, kind, rows, columns, kind.because)


def _group(title: str, kinds: Mapping[str, Kind], rows: Json, columns: list[str]) -> Iterator[str]:
    yield from _heading(title, columns)
    for says, kind in kinds.items():
        yield _row(says, kind, rows, columns)


def _faults(rows: Json, says: str, column: str, way: str) -> list[Fault]:
    both = rows.get(says, {}).get(column, {}).get(way, {})
    return [Fault(*fault) for run in both.values() for fault in run["faults"]]


def _cell(found: Json, way: str, kind: Kind) -> str:
    """Both runs of one row in one column."""
    if way not in found:
        return ""
    first, again = (_wrong(found[way][which]) for which in (FIRST, AGAIN))
    if first and again:
        return first if first == again else f"first {first}; then {again}"
    if first:
        return f"first {first}"
    if again:
        known = kind.lacks != NOTHING and way == STEPMEMO and "hook" in again
        return f"{again} ([as said](limits.md#what-a-hit-lacks))" if known else again
    hits = found[way][AGAIN]["hits"]
    return "✓ *runs again*" if hits.startswith("0 ") or (kind.shape.runs and not hits) else "✓"


def _wrong(run: Json) -> str:
    return ", ".join(dict.fromkeys(FAULTS[kind] for kind, _ in run["faults"]))


def main() -> None:
    PAGE.write_text(render(json.loads(SOURCE.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
