"""RESULTS.md, made from the JSON of every benchmark's latest run."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import curves
from bench.figures import Figure, Report
from bench.machine import Machine
from bench.measure import Summary

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCUMENT = HERE / "RESULTS.md"
_HEAD = """# What stepmemo costs

Made by `make bench` and, for the part on a cluster, `python -m bench cluster`; not edited by hand. How each
figure is taken, and what surprised us, is in [README.md](README.md).

`median (quartiles)`; p99 is the largest where there are fewer than 100 values. A ratio is that of the two
medians; its quartiles are over the rounds, in which both sides were measured one after the other.
"""
_COLUMNS = ("what", "n", "measured", "p99", "against", "measured", "p99", "ratio", "target", "met")


def save(report: Report, directory: Path = RESULTS) -> None:
    """Keep the report in place of an earlier one of its name."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{report.name}.json"
    path.write_text(json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(names: Iterable[str], directory: Path = RESULTS) -> list[Report]:
    """The reports that are there: those named in that order, then the others by name."""
    order = {name: number for number, name in enumerate(names)}
    paths = sorted(directory.glob("*.json"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    return [Report.from_json(json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def render(reports: Sequence[Report]) -> str:
    """The reports as Markdown, each with its picture if there is one."""
    pictures = curves.drawn(reports)
    sections = (_section(report, has_picture=report.name in pictures) for report in reports)
    return "\n".join([_HEAD, _machines(reports), *sections])


def _machines(reports: Sequence[Report]) -> str:
    """Each machine once, whatever its load and the date."""
    lines = dict.fromkeys(_machine(report.machine) for report in reports)
    return "## Machine\n\n" + "".join(f"- {line}\n" for line in lines)


def _machine(machine: Machine) -> str:
    return (
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB; "
        f"{machine.kernel}; {machine.python}"
    )


def _section(report: Report, *, has_picture: bool) -> str:
    facts = {
        **report.facts,
        "date": report.machine.date,
        "load average at the start": f"{report.machine.load:g}",
    }
    picture = [f"![{report.title}](results/{report.name}.svg)\n"] if has_picture else []
    return "\n".join(
        [
            f"## {report.title}\n",
            f"{report.method}\n",
            "; ".join(f"{name}: {value}" for name, value in facts.items()) + ".\n",
            *picture,
            _row(_COLUMNS),
            _row(["---"] * len(_COLUMNS)),
            *(_row(_cells(figure)) for figure in report.figures),
            "",
        ]
    )


def _cells(figure: Figure) -> list[str]:
    return [
        figure.what,
        f"{figure.value.n}",
        _measured(figure.value, figure.unit),
        number(figure.value.p99),
        figure.against,
        _measured(figure.reference, figure.unit),
        number(figure.reference.p99),
        _measured(figure.ratio, "×"),
        _target(figure),
        "" if figure.target is None else "yes" if figure.target.met(figure) else "**no**",
    ]


def _target(figure: Figure) -> str:
    target = figure.target
    if target is None:
        return ""
    sign = "≤" if target.bound == "at most" else "≥"
    return f"{sign} {target.limit:g} {'×' if target.of == 'ratio' else figure.unit}"


def _measured(summary: Summary, unit: str) -> str:
    return f"{number(summary.median)} {unit} ({number(summary.low)}–{number(summary.high)})"


def number(value: float) -> str:
    """Three digits that count, and no exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.6f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '¦') for cell in cells)} |"


def as_text(report: Report) -> str:
    """The report for a terminal."""
    machine = asdict(report.machine)
    lines = [f"{report.title} ({machine['date']}, load {machine['load']:g})"]
    for figure in report.figures:
        what, measured, _, against, reference, _, times, target, met = (
            *_cells(figure)[:1],
            *_cells(figure)[2:],
        )
        verdict = f"; target {target}: {met.strip('*')}" if target else ""
        lines.append(f"  {what}: {measured}\n    against {against}: {reference}\n    {times}{verdict}")
    return "\n".join(lines)


def write(names: Iterable[str], directory: Path = RESULTS, document: Path = DOCUMENT) -> None:
    """Make RESULTS.md, and the pictures in it, of all reports that are there."""
    reports = load(names, directory)
    for name, picture in curves.drawn(reports).items():
        (directory / f"{name}.svg").write_text(picture, encoding="utf-8")
    document.write_text(render(reports), encoding="utf-8")
