"""Plan of a comparison: recipes with their overrides, checked against the jobs that carry them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.compare.data import ComparisonData
from index.compare.steps import JOBS, step_job
from retrieval.embed.job import EmbedJob
from retrieval.errors import LmrError
from retrieval.train.job import TrainJob
from retrieval.train.recipes.recipe import (
    NETWORK_KEYS,
    Options,
    Recipe,
    change,
    choices,
    members,
    on_network,
    override,
    read_recipe,
    settle,
)
from retrieval.train.recipes.values import parse_spec, texts


@dataclass(frozen=True, slots=True)
class Entry:
    """One system of a comparison. label: as it was asked for. recipe: with all overrides."""

    label: str
    recipe: Recipe


def read_entries(specs: Sequence[str], changes: Mapping[str, Any], options: Options) -> list[Entry]:
    """The systems that are asked for, as RECIPE or RECIPE:KEY=VALUE,… each.

    changes: key -> value for all of them that know the key. LmrError: no such recipe, a key that none of them knows, a
    value that cannot be, the same system twice.
    """
    network = {key: value for key, value in changes.items() if key in NETWORK_KEYS} if "backbone" in changes else {}
    others = {key: value for key, value in changes.items() if key not in network}
    refusals: dict[str, list[LmrError]] = {key: [] for key in others}
    entries: list[Entry] = []
    for spec, recipe, values in _read_recipes(specs, options):
        recipe = override(recipe, values, options)
        for key, value in others.items():
            try:
                recipe = override(recipe, {key: value}, options)
            except LmrError as error:
                refusals[key].append(error)
        recipe = override(recipe, values, options)  # again, since what one recipe is told outweighs what all are told
        if network:
            recipe = on_network(recipe, network)
        for values in ({}, *_further_values(recipe, options)):
            parts = members(settle(change(recipe, values, options), options), 0, options)
            for member in parts:
                require_values(member)
            _require_alike(parts)
        entries.append(Entry(spec, recipe))
    for errors in refusals.values():
        if len(errors) == len(entries):
            raise errors[0]
    return entries


def _read_recipes(specs: Sequence[str], options: Options) -> list[tuple[str, Recipe, dict[str, Any]]]:
    """Each as it is shipped or lies there, with what it is told; all are read before one is looked at closely."""
    found: list[tuple[str, Recipe, dict[str, Any]]] = []
    for spec in specs:
        if spec in [other for other, *_ in found]:
            raise LmrError(f"{spec} is asked for twice")
        name, values = parse_spec(spec)
        found.append((spec, read_recipe(name, options), values))
    return found


def left_out(data: ComparisonData, recipe: Recipe) -> list[str]:
    """The manifests of non-landmarks that a recipe names and the data does not have; it goes on without them."""
    named: set[str] = set()
    for table in recipe.tables.values():
        for value in (table.get("negatives", []), table.get("background", [])):
            named |= set(texts(value))
    return sorted(name for name in named if data.find(name) is None)


def require_values(recipe: Recipe) -> None:
    """LmrError where a job would not take the values that a recipe without lists has for it."""
    if recipe.answering.comparisons:
        from retrieval.local.rootsift import require_opencv

        require_opencv(f"comparisons of {recipe.source}")
    for step in JOBS:
        if step not in recipe.tables:
            continue
        try:
            _require_values(step, recipe.tables[step], recipe.stages if step == "train" else ())
        except LmrError as error:
            raise LmrError(f"{recipe.source}: {error}") from error


def _require_values(step: str, table: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> None:
    job = step_job(step, Path(), table, stages)
    if isinstance(job, EmbedJob):
        if job.network is not None and job.network.backbone:
            job.network.require()
        job.embedding.settings()
    if isinstance(job, TrainJob):
        job.network.require()
        for stage in job.stages:
            if (patience := stage.training.patience) and job.val is None:
                raise LmrError(f"`patience` {patience} needs `val`, the pictures that tell a better epoch")


def _require_alike(parts: Sequence[Recipe]) -> None:
    """LmrError where members whose mean is taken answer in different ways, or through different indexes."""
    first = parts[0]
    if len(parts) > 1 and any(member.answering.comparisons for member in parts):
        raise LmrError(f"{first.source}: [answer] comparisons is of one network, and it has {len(parts)} members")
    if first.answering.combine == "majority":
        return
    if any(member.answering != first.answering for member in parts):
        raise LmrError(f"{first.source}: [answer] is of all members, as their mean is taken; set it for all")
    if first.answering.by == "classifier":
        return
    for table in ("build-index", "calibrate", "answer"):
        if any(member.tables.get(table) != first.tables.get(table) for member in parts):
            raise LmrError(f"{first.source}: [{table}] is of all members, as their mean is one index; set it for all")


def _further_values(recipe: Recipe, options: Options) -> list[dict[str, Any]]:
    """Each value of each list but its first, which is what runs without a search."""
    return [{key: value} for key, values in choices(recipe, options).items() for value in values[1:]]
