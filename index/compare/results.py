"""Results of a comparison: rows with means and spreads, as CSV and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.data.csv_cells import table_lines

if TYPE_CHECKING:
    from index.compare.measure import Measured
    from retrieval.arrays import FloatArray
    from retrieval.train.recipes.recipe import Recipe

FIGURES = ("gap", "top1", "top5", "top10", "mean_landmark_accuracy", "turned_away")  # of `Measured`
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


@dataclass(frozen=True, slots=True)
class Comparison:
    """Outcome of a comparison on a part. facts: of its queries and data. folder: of the tables that were written."""

    rows: Sequence[Row]
    facts: Mapping[str, Any]
    folder: Path

    def place(self, end: str) -> Path:
        """Path of one of its files, by how its name ends."""
        return self.folder / f"comparison-{self.facts['part']}{end}"

    def to_json(self) -> dict[str, Any]:
        """Everything, with the whole configuration of each system."""
        return {**self.facts, "systems": [_system_json(row) for row in self.rows]}


def to_csv(rows: Sequence[Row]) -> str:
    """A line for each system: mean and standard deviation of every figure, empty where there is none."""
    columns: dict[str, list[Any]] = {"system": [row.label for row in rows], "n_seeds": [len(row.runs) for row in rows]}
    for key in (*FIGURES, *FACTS):
        columns[key], columns[f"{key}_sd"] = map(list, zip(*(row.figure(key) for row in rows), strict=True))
    columns["gap_low"], columns["gap_high"] = map(list, zip(*(row.gap_interval for row in rows), strict=True))
    return "".join(table_lines({name: np.array(values, dtype=object) for name, values in columns.items()}))


def landmarks_to_csv(rows: Sequence[Row]) -> str:
    """A line for each landmark that queries show: how many do, and the share that each system answered rightly.

    Of several seeds the mean.
    """
    asked = rows[0].runs[0].measured.by_landmark
    columns = {"landmark_id": np.array(asked.landmarks, dtype=object), "n_queries": asked.n_queries}
    return "".join(table_lines({**columns, **{row.label: row.landmark_accuracy for row in rows}}))


def _system_json(row: Row) -> dict[str, Any]:
    recipe = row.recipe
    figures = {key: row.figure(key) for key in (*FIGURES, *FACTS)}
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
