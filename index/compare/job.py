"""Comparing: systems by recipes, trained and scored on the same data, in one table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retrieval.data.request import ImagesJob
from retrieval.device_name import require_one_device
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import ComputingJob, WritingJob, from_text, option, told

if TYPE_CHECKING:
    from index.compare.folders import Workshop
    from index.compare.plan import Entry
    from index.compare.results import Comparison, Row
    from retrieval.train.recipes.recipe import Options, Recipe

BASELINES = {
    "random": "Landmarks at random, with random certainty.",
    "most frequent": "The landmark with the most training pictures, whatever the picture shows.",
}
PRECISION = 0.95  # of the answers of baselines, as the default of calibration
_OF_ALL = {"workers": int, "threads": int, "device": str}  # words of the comparison itself, also among the changes


@dataclass(frozen=True)
class CompareJob(ImagesJob, ComputingJob, WritingJob):
    """Train and score recipes on the same data. changes: KEY=VALUE for all recipes."""

    recipes: tuple[str, ...] = field(metadata=told(is_argument=True))
    data: Path = option(Path(), default_text="this one", help="Folder with train.csv, val.csv and more.")
    output: Path = option(Path("compare"), help="Folder to work and report in.")
    part: Literal["val", "test"] = option("val", help="Part that is scored.")
    solution: Path | None = option(None, default_text="test_solution.csv", help="Answers to test.")
    seeds: str = option("0", metavar="N,N,...", help="Random seeds of training; each is a run.")
    search: int = option(0, low=0, help="Combinations of listed values to try on val.")
    backbone: str | None = option(None, help="Network for all recipes, in place of their own.")
    weights: Path | None = option(None, help="State dict for `backbone`.")
    changes: tuple[str, ...] = option(
        (), name="set", metavar="KEY=VALUE", help="Override in all recipes; may be repeated."
    )

    def __post_init__(self) -> None:
        """Raises LmrError for several GPUs at once."""
        super().__post_init__()
        require_one_device(self.device, "a comparison trains too, so give it one")


def compare(job: CompareJob) -> "Comparison":
    """Makes and scores the systems, and writes comparison-PART.csv, -landmarks.csv and .json into the output folder.

    What is finished there is used again. Raises LmrError for what cannot be used, before anything is made, and for a
    system that cannot be made, by its name.
    """
    with output_locks(job.output, wait=job.wait, progress=job.progress):
        from index.compare.data import read_data, read_queries
        from index.compare.folders import Workshop
        from index.compare.make import require_files
        from index.compare.plan import left_out, read_entries
        from index.compare.results import Comparison
        from index.compare.steps import step_options

        options, progress = step_options(), job.progress
        seeds = _parse_seeds(job.seeds)
        changes = _changes(job)
        job = _take_own(job, changes)
        entries = read_entries(job.recipes, changes, options)
        data = read_data(
            job.data, job.images, progress, test=job.part == "test", solution=job.solution, names=job.column_names
        )
        queries = {name: read_queries(data, name, progress) for name in data.parts}
        for entry in entries:
            for name in left_out(data, entry.recipe):
                progress.warn(f"{entry.label}: {data.folder} has no {name}; made without it")
        if job.output.exists() and not job.output.is_dir():
            raise LmrError(f"`output` {job.output} is a file; give a folder")
        job.output.mkdir(parents=True, exist_ok=True)
        shop = Workshop(data, queries, job)
        for entry in entries:
            require_files(shop, entry, options)
        rows = [_row(shop, entry, options, seeds) for entry in entries] + _baselines(shop)
        facts = {
            "part": job.part,
            "manifest": str(data.parts[job.part]),
            "seeds": seeds,
            "n_queries": len(queries[job.part][2]),
            "n_landmark_queries": int(queries[job.part][2].truths.known.sum()),
            "n_train": int(data.counts.sum()),
            "n_landmarks": len(data.landmarks),
        }
        comparison = Comparison(rows, facts, job.output)
        _write(comparison)
        return comparison


def _write(comparison: "Comparison") -> None:
    from index.compare.results import landmarks_to_csv, to_csv
    from retrieval.files.atomic import write_text

    write_text(comparison.place(".csv"), [to_csv(comparison.rows)])
    write_text(comparison.place("-landmarks.csv"), [landmarks_to_csv(comparison.rows)])
    write_text(comparison.place(".json"), [json.dumps(comparison.to_json(), indent=1, default=str), "\n"])


def _row(shop: "Workshop", entry: "Entry", options: "Options", seeds: Sequence[int]) -> "Row":
    """One system with all its seeds, after the search where one is asked for."""
    from index.compare.make import make_system
    from index.compare.measure import measure
    from index.compare.results import Row, Run
    from retrieval.train.recipes.recipe import members, settle

    recipe, part = entry.recipe, shop.job.part
    tried: list[dict[str, Any]] = []
    if shop.job.search:
        recipe, tried = _search(shop, entry, options, seeds[0])
    settled = settle(recipe, options)
    runs = []
    for seed in seeds:
        shop.job.progress.tell(f"{entry.label}, seed {seed}")
        parts = members(settled, seed, options)
        made = make_system(shop, entry.label, parts, part)
        runs.append(Run(seed, measure(made.answered, shop.queries[part][2]), made.facts, made.logs))
        if all("train" not in member.tables for member in parts):
            break  # without training every seed is the same
    return Row(entry.label, settled.about, runs, settled, tried)


def _search(shop: "Workshop", entry: "Entry", options: "Options", seed: int) -> "tuple[Recipe, list[dict[str, Any]]]":
    """The recipe with the combination of listed values that has the largest GAP on val, and all that were tried."""
    from index.compare.make import make_system
    from index.compare.measure import measure
    from retrieval.train.recipes.recipe import change, choices, draw, members

    if not choices(entry.recipe, options):
        return entry.recipe, []
    tried: list[dict[str, Any]] = []
    for values in draw(entry.recipe, options, shop.job.search, seed):
        said = ", ".join(f"{key} = {value}" for key, value in values.items())
        shop.job.progress.tell(f"{entry.label}: {said}")
        recipe = change(entry.recipe, values, options)
        made = make_system(shop, entry.label, members(recipe, seed, options), "val")
        tried.append({"values": values, "gap": measure(made.answered, shop.queries["val"][2]).accuracy.gap})
    best = max(tried, key=lambda trial: trial["gap"])
    return change(entry.recipe, best["values"], options), tried


def _baselines(shop: "Workshop") -> "list[Row]":
    """Rows of what answers without looking."""
    from index.compare.measure import measure
    from index.compare.results import Row, Run
    from index.compare.systems import Chance, answers_of

    part = shop.job.part
    val, asked = shop.queries["val"][2], shop.queries[part][2]
    rows = []
    for by, about in BASELINES.items():
        system = Chance(shop.data.counts, "random" if by == "random" else "most frequent", PRECISION)
        answered = answers_of(system, val, asked if part == "test" else None)
        rows.append(Row(by, about, [Run(0, measure(answered, asked), {})]))
    return rows


def _changes(job: CompareJob) -> dict[str, Any]:
    """Overrides for all recipes."""
    from retrieval.train.recipes.values import parse_values

    changes = parse_values("`set`", job.changes)
    if job.weights is not None:
        if not job.weights.is_file():
            raise LmrError(f"`weights` {job.weights}: there is no such file")
        changes["weights"] = str(job.weights.resolve())
    if job.backbone is not None:
        changes["backbone"] = job.backbone
    return changes


def _take_own(job: CompareJob, changes: dict[str, Any]) -> CompareJob:
    """The job with what of the overrides is a word of its own, which is taken from them."""
    items = {item.name: item for item in fields(job)}
    for word, kind in _OF_ALL.items():
        if word in changes:
            value = changes.pop(word)
            try:
                job = replace(job, **{word: from_text(str(value), kind, items[word])})
            except ValueError as error:
                raise LmrError(f"`set` {word}={value}: {error}") from error
    return job


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise LmrError(f"`seeds` {text}: expected different numbers from 0 with commas, such as 0,1,2")
    return seeds
