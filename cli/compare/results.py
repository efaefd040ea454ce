"""What a comparison found: rows with means and spreads, as text, CSV and JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.terminal import shown
from retrieval.data.csv_cells import csv_line

if TYPE_CHECKING:
    from index.compare.measure import Measured
    from retrieval.arrays import FloatArray
    from retrieval.train.recipe import Recipe

# Key, heading, and how a value is told.
COLUMNS = (
    ("gap", "GAP", "{:.3f}"),
    ("top1", "top-1", "{:.3f}"),
    ("top5", "top-5", "{:.3f}"),
    ("top10", "top-10", "{:.3f}"),
    ("mean_landmark_accuracy", "per landmark", "{:.3f}"),
    ("turned_away", "turned away", "{:.1%}"),
    ("training_s", "training, s", "{:.0f}"),
    ("pictures_per_s", "pictures/s", "{:.1f}"),
    ("descriptor_bytes", "bytes", "{:.0f}"),
)
INTERVAL = "95 % of it"  # heading of the interval of the GAP, which stands behind it
FACTS = ("training_s", "pictures_per_s", "descriptor_bytes")


@dataclass(frozen=True, slots=True)
class Run:
    """One system with one seed.

    facts: values of FACTS, None where there is none. logs: training.csv of members and stages, by name.
    """

    seed: int
    measured: "Measured"
    facts: Mapping[str, float | None]
    logs: Mapping[str, Path] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        """Every figure by its key."""
        return {**self.measured.to_json(), **{name: self.facts.get(name) for name in FACTS}}


@dataclass(frozen=True, slots=True)
class Row:
    """A system with all its seeds. recipe: None for what answers by chance. tried: combinations that were searched."""

    label: str
    about: str
    runs: Sequence[Run]
    recipe: "Recipe | None" = None
    tried: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def figure(self, key: str) -> tuple[float | None, float | None]:
        """Mean and standard deviation over the seeds; None where there is none."""
        from index.compare.measure import spread

        return spread([run.values[key] for run in self.runs])

    @property
    def gap_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the GAP over queries; of several seeds the mean of both bounds."""
        low, high = np.mean([run.measured.gap_interval for run in self.runs], axis=0).tolist()
        return low, high

    @property
    def landmark_accuracy(self) -> "FloatArray":
        """(m,) of each landmark that queries show, in the order of `Measured.by_landmark`, the mean over the seeds."""
        mean: FloatArray = np.mean([run.measured.by_landmark.accuracy for run in self.runs], axis=0)
        return mean

    def cell(self, key: str, form: str) -> str:
        """Mean and spread for people; a dash where there is none."""
        mean, deviation = self.figure(key)
        if mean is None:
            return "–"
        return form.format(mean) + (f" ± {form.format(deviation)}" if deviation is not None else "")


def headings() -> list[str]:
    """The headings of `cells`."""
    first, *others = [heading for _, heading, _ in COLUMNS]
    return [first, INTERVAL, *others]


def cells(row: Row) -> list[str]:
    """The figures of a system for people: the first of COLUMNS, its interval, the others."""
    first, *others = [row.cell(key, form) for key, _, form in COLUMNS]
    return [first, "{:.3f}-{:.3f}".format(*row.gap_interval), *others]


def to_text(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    table = [["", *headings()], *([shown(row.label), *cells(row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in table
    )


def to_csv(rows: Sequence[Row]) -> str:
    """A line for each system: mean and standard deviation of every figure, empty where there is none."""
    keys = [key for key, _, _ in COLUMNS]
    names = [name for key in keys for name in (key, f"{key}_sd")]
    lines: list[list[Any]] = [["system", "n_seeds", *names, "gap_low", "gap_high"]]
    for row in rows:
        figures = [value for key in keys for value in row.figure(key)]
        figures += row.gap_interval
        lines.append([row.label, len(row.runs), *("" if value is None else repr(value) for value in figures)])
    return _csv(lines)


def landmarks_to_csv(rows: Sequence[Row]) -> str:
    """A line for each landmark that queries show: how many do, and the share that each system answered rightly.

    Of several seeds the mean.
    """
    asked = rows[0].runs[0].measured.by_landmark
    shares = [row.landmark_accuracy.tolist() for row in rows]
    lines = zip(asked.landmarks, asked.n_queries.tolist(), *shares, strict=True)
    return _csv([["landmark_id", "n_queries", *(row.label for row in rows)], *lines])


def to_json(rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, with the whole configuration of each system. facts: of the comparison."""
    return {**facts, "systems": [_system_json(row) for row in rows]}


def _csv(lines: Iterable[Iterable[Any]]) -> str:
    return "".join(map(csv_line, lines))


def _system_json(row: Row) -> dict[str, Any]:
    recipe = row.recipe
    figures = {key: row.figure(key) for key, _, _ in COLUMNS}
    return {
        "system": row.label,
        "about": row.about,
        "gap_interval": list(row.gap_interval),
        "mean": {key: mean for key, (mean, _) in figures.items()},
        "standard_deviation": {key: deviation for key, (_, deviation) in figures.items()},
        "runs": [{"seed": run.seed, **run.values} for run in row.runs],
        "recipe": None if recipe is None else {"tables": recipe.tables, "members": list(recipe.members)},
        "searched": list(row.tried),
    }
