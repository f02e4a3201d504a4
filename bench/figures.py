"""What a benchmark comes to: figures, each against something measured in the same run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.machine import Machine
from bench.measure import Summary, ratio, summary


@dataclass(frozen=True, slots=True)
class Target:
    """A limit that somebody set. It concerns the ratio, or with `of="value"` the figure itself."""

    bound: Literal["at most", "at least"]
    limit: float
    of: Literal["ratio", "value"] = "ratio"

    def met(self, figure: "Figure") -> bool:
        """Whether the figure keeps it, by the median."""
        number = figure.ratio.median if self.of == "ratio" else figure.value.median
        return number <= self.limit if self.bound == "at most" else number >= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """`what` was measured, in `unit`, beside a reference, `against`."""

    what: str
    unit: str
    value: Summary
    against: str
    reference: Summary
    ratio: Summary
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One benchmark's run. `facts` say what it ran against and how large it was."""

    name: str
    title: str
    method: str
    facts: dict[str, str]
    machine: Machine
    figures: tuple[Figure, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON's own types."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Report":
        """The inverse of to_json; KeyError or TypeError for anything else."""
        figures = tuple(_figure(figure) for figure in fields["figures"])
        return cls(**{**fields, "machine": Machine(**fields["machine"]), "figures": figures})


def compare(
    what: str,
    unit: str,
    values: Sequence[float],
    against: str,
    references: Sequence[float],
    target: Target | None = None,
) -> Figure:
    """The figure for values that were measured in the same rounds as their references."""
    return Figure(
        what, unit, summary(values), against, summary(references), ratio(values, references), target
    )


def _figure(fields: dict[str, Any]) -> Figure:
    summaries = {name: Summary(**fields[name]) for name in ("value", "reference", "ratio")}
    target = Target(**fields["target"]) if fields["target"] is not None else None
    return Figure(**{**fields, **summaries, "target": target})
